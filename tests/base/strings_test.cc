#include "base/strings.h"

#include <gtest/gtest.h>

namespace deepseek {
namespace {

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

}  // namespace
}  // namespace deepseek
