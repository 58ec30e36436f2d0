#include "base/guard.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <new>
#include <string>
#include <system_error>
#include <vector>

namespace deepseek {
namespace {

template <class E>
Status thrown(E error) {
  return guarded("while testing", [&]() -> Status { throw error; });
}

TEST(Guard, WhatIsThrownBecomesAnError) {
  EXPECT_EQ(thrown(std::bad_alloc()).message(), "while testing: there is not enough memory for it");
  EXPECT_EQ(thrown(std::bad_alloc()).code(), ErrorCode::kIo);
  EXPECT_EQ(thrown(std::length_error("x")).message(), "while testing: there is not enough memory for it");
  EXPECT_EQ(thrown(std::system_error(EACCES, std::generic_category())).code(), ErrorCode::kIo);
  EXPECT_EQ(thrown(std::runtime_error("odd")).message(), "while testing: odd");
  EXPECT_EQ(thrown(std::runtime_error("odd")).code(), ErrorCode::kInternal);
  EXPECT_EQ(thrown(7).message(), "while testing: an exception of an unknown kind");
}

TEST(Guard, ResultsAndErrorsPassThrough) {
  EXPECT_EQ(guarded("x", []() -> Result<int> { return 3; }).value(), 3);
  EXPECT_EQ(guarded("x", []() -> Result<int> { return invalid("no"); }).status().message(), "no");
  const auto huge = [n = ~size_t{0}]() -> Result<std::vector<char>> { return std::vector<char>(n); };
  EXPECT_EQ(guarded("a vector", huge).status().message(), "a vector: there is not enough memory for it");
}

}  // namespace
}  // namespace deepseek
