#include "base/status.h"

#include <gtest/gtest.h>

namespace deepseek {
namespace {

TEST(Status, TextIsMessageThenNotesInTheOrderTheyWereAdded) {
  Status status = invalid("[conv] node '{}': expected rank {}, got {}", "stem", 4, 3);
  status = std::move(status).note("while building model 'resnet'");
  status = std::move(status).note("while reading 'run.yaml'");
  EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(status.to_string(),
            "[conv] node 'stem': expected rank 4, got 3\n"
            "  note: while building model 'resnet'\n"
            "  note: while reading 'run.yaml'");
}

TEST(Status, BugsOfOursAskForAReportAndUserErrorsDoNot) {
  EXPECT_EQ(internal_error("value %{} is made twice", 3).to_string(),
            "internal error (please report it): value %3 is made twice");
  EXPECT_EQ(make_error(ErrorCode::kNotFound, "no file '{}'", "a").to_string(), "no file 'a'");
}

TEST(Status, NotesOnACopyLeaveTheOriginalAlone) {
  const Status original = invalid("bad");
  const Status copy = Status(original).note("deeper");
  EXPECT_TRUE(original.notes().empty());
  EXPECT_EQ(copy.notes(), std::vector<std::string>{"deeper"});
}

TEST(Status, OkTakesNoNotes) {
  EXPECT_TRUE(Status().note("unused").ok());
  EXPECT_EQ(Status().to_string(), "ok");
  EXPECT_EQ(Status().message(), "");
}

TEST(Status, EachCodeHasANameOfItsOwn) {
  std::vector<std::string> names;
  for (int code = 0; code <= static_cast<int>(ErrorCode::kInternal); ++code) {
    const std::string name = to_string(static_cast<ErrorCode>(code));
    EXPECT_NE(name, "unknown");
    for (const std::string& other : names) EXPECT_NE(name, other);
    names.push_back(name);
  }
}

Result<int> half(int x) {
  if (x % 2 != 0) return invalid("{} is odd", x);
  return x / 2;
}
Result<int> quarter(int x) {
  DS_ASSIGN(const int h, half(x));
  return half(h);
}
Status check_quarter(int x) {
  DS_TRY(quarter(x).status());
  return {};
}

TEST(Result, AssignAndTryPassTheFirstErrorOn) {
  EXPECT_EQ(*quarter(12), 3);
  EXPECT_EQ(quarter(3).status().message(), "3 is odd");
  EXPECT_EQ(quarter(6).status().message(), "3 is odd");
  EXPECT_TRUE(check_quarter(12).ok());
  EXPECT_EQ(check_quarter(5).message(), "5 is odd");
}

}  // namespace
}  // namespace deepseek
