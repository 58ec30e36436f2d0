#include "runtime/program_cache.h"

#include <gtest/gtest.h>

namespace deepseek::runtime {
namespace {

TEST(ProgramCache, KeepsTheLatestUsed) {
  ProgramCache cache(2);
  const auto get = [&](const std::string& key) {
    return cache.get(key, []() -> Result<ProgramCache::Entry> { return ProgramCache::Entry(); }).ok();
  };
  for (const char* key : {"a", "b", "a", "a", "c"}) EXPECT_TRUE(get(key));  // b goes
  EXPECT_EQ(cache.compiled(), 3);
  EXPECT_TRUE(get("a") && get("c"));
  EXPECT_EQ(cache.compiled(), 3);
  EXPECT_TRUE(get("b"));
  EXPECT_EQ(cache.compiled(), 4);
  EXPECT_EQ(cache.size(), 2u);
}

TEST(ProgramCache, AFailureIsNotKept) {
  ProgramCache cache;
  EXPECT_FALSE(cache.get("a", []() -> Result<ProgramCache::Entry> { return invalid("no"); }).ok());
  EXPECT_EQ(cache.size(), 0u);
}

}  // namespace
}  // namespace deepseek::runtime
