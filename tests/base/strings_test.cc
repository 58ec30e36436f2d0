#include "base/strings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/synonyms.h"

namespace deepseek {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(Strings, EditDistanceCountsSingleChanges) {
  EXPECT_EQ(edit_distance("", ""), 0u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("abc", ""), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);  // the textbook's pair
  EXPECT_EQ(edit_distance("momentun", "momentum"), 1u);
}

TEST(Strings, NearestIsATypingMistakeOrNothing) {
  const std::vector<std::string> keys{"epochs", "batch_size", "seed"};
  EXPECT_EQ(nearest("epoch", keys), "epochs");
  EXPECT_EQ(nearest("batchsize", keys), "batch_size");
  EXPECT_EQ(nearest("zzzzzz", keys), "");
  EXPECT_EQ(nearest("epochs", {}), "");
  EXPECT_EQ(nearest("ab", {"ac", "ab"}), "ab");  // the exact one wins, wherever it stands
}

TEST(Strings, Join) {
  EXPECT_EQ(join({}, ", "), "");
  EXPECT_EQ(join({"a"}, ", "), "a");
  EXPECT_EQ(join({"a", "b", "c"}, ", "), "a, b, c");
  EXPECT_EQ(join({"", "b", ""}, ","), ",b,");
}

TEST(Strings, SplitKeepsEmptyParts) {
  using Parts = std::vector<std::string>;
  EXPECT_EQ(split("a.b..c", '.'), (Parts{"a", "b", "", "c"}));
  EXPECT_EQ(split(".", '.'), (Parts{"", ""}));
  EXPECT_EQ(split("", '.'), Parts{""});
}

TEST(Strings, DidYouMean) {
  EXPECT_EQ(did_you_mean("momentun", {"momentum", "seed"}), "; did you mean 'momentum'?");
  EXPECT_EQ(did_you_mean("zzzzzz", {"momentum"}), "");
  EXPECT_EQ(did_you_mean("LR", {"momentum", "learning_rate"}), "; did you mean 'learning_rate'?");
  EXPECT_EQ(did_you_mean("betas", {"beta1", "beta2"}), "; did you mean 'beta1' and 'beta2'?");
}

TEST(Strings, SynonymsAreOfWhatIsKnown) {
  EXPECT_THAT(synonyms("num-epochs", {"seed", "epochs"}), ElementsAre("epochs"));
  EXPECT_THAT(synonyms("depth", {"blocks", "width"}), ElementsAre("blocks"));
  EXPECT_THAT(synonyms("betas", {"beta1"}), IsEmpty());
  EXPECT_THAT(meant("learning_rat", {"learning_rate"}), ElementsAre("learning_rate"));
}

TEST(Strings, LowerUpperTrim) {
  EXPECT_EQ(lower("Ab_9\u00c4"), "ab_9\u00c4");
  EXPECT_EQ(upper("aZ_9\u00e4"), "AZ_9\u00e4");
  EXPECT_EQ(trim(" \ta b\t "), "a b");
  EXPECT_EQ(trim("  "), "");
}

TEST(Strings, ParseNumberTakesTheWholeText) {
  EXPECT_EQ(parse_number("-1.5e3"), -1500.0);
  EXPECT_FALSE(parse_number("1,5"));
  EXPECT_FALSE(parse_number("1 "));
  EXPECT_FALSE(parse_number(""));
}

// The boundaries of Unicode's table 3-7, well-formed byte sequences.
TEST(Strings, Utf8) {
  for (const char* text : {"", "plain", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEF\xBF\xBD",
                           "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"})
    EXPECT_EQ(first_invalid_utf8(text), std::string_view(text).size());
  for (const char* text : {"\x80", "\xC1\xBF", "\xC2", "\xC2 ", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xE2\x82",
                           "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF"})
    EXPECT_EQ(first_invalid_utf8(std::string("ab") + text), 2u);
}

}  // namespace
}  // namespace deepseek
