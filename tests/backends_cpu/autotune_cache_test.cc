// What is remembered of measured kernels, across objects, processes and broken files; and programs that measure.
#include "backends/cpu/autotune_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "backends/cpu/cpu_backend.h"
#include "graph/builder.h"
#include "ops/registry.h"

namespace deepseek::backends::cpu {
namespace {

using namespace graph;

class AutotuneCacheTest : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::remove_all(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_ = std::filesystem::path(::testing::TempDir()) / "deepseek_autotune_cache";
  std::string path_ = (folder_ / "a" / "kernels.txt").string();
};

TEST_F(AutotuneCacheTest, AreKeptPerMachineAndMergedWithThoseOfOthers) {
  AutotuneCache one(path_, "machine"), two(path_, "machine");
  one.remember("x", "winograd");
  two.remember("y", "onednn");
  EXPECT_TRUE(one.save().ok());
  EXPECT_TRUE(two.save().ok());
  AutotuneCache all(path_, "machine");
  EXPECT_EQ(all.find("x"), "winograd");
  EXPECT_EQ(all.find("y"), "onednn");
  EXPECT_EQ(all.find("z"), "");
  EXPECT_EQ(AutotuneCache(path_, "another").find("x"), "");
}

TEST_F(AutotuneCacheTest, BrokenFilesAreMeasuredAgain) {
  AutotuneCache one(path_, "machine");
  one.remember("x", "winograd");
  ASSERT_TRUE(one.save().ok());
  std::filesystem::resize_file(path_, 12);
  EXPECT_EQ(AutotuneCache(path_, "machine").find("x"), "");
  std::ofstream(path_) << "machine\nno hash\n\n\xff\xfe 1 2 3\n";
  AutotuneCache again(path_, "machine");
  EXPECT_EQ(again.find("x"), "");
  again.remember("x", "onednn");
  EXPECT_TRUE(again.save().ok());
  EXPECT_EQ(AutotuneCache(path_, "machine").find("x"), "onednn");
}

TEST_F(AutotuneCacheTest, AFolderThatCantBeWrittenIsAnError) {
  std::filesystem::create_directories(folder_);
  std::ofstream(folder_ / "a") << "a file where a folder should be";
  AutotuneCache one(path_, "machine");
  one.remember("x", "winograd");
  EXPECT_THAT(one.save().to_string(), ::testing::HasSubstr("can't be written"));
}

// A 3 x 3 convolution that both winograd and microgemm take: whichever was faster is remembered, and told.
TEST_F(AutotuneCacheTest, AProgramMeasuresOnce) {
  ASSERT_EQ(setenv("DEEPSEEK_CACHE", folder_.c_str(), 1), 0);
  Builder b(ops::registry());
  Expr x = b.input("x", {DType::kF32, {2, 32, 24, 24}}), w = b.input("w", {DType::kF32, {32, 32, 3, 3}});
  b.output("y", b.op("conv", {x, w}, {{"padding_low", Dims{1, 1}}, {"padding_high", Dims{1, 1}}}));
  const Result<Graph> graph = b.finish();
  ASSERT_TRUE(graph.ok());
  runtime::CompileOptions options;
  options.measure_kernels = true;
  std::vector<std::string> chosen;
  size_t measured = 0;
  for (int i = 0; i < 2; ++i) {
    const auto program = CpuBackend().compile(*graph, options);
    ASSERT_TRUE(program.ok()) << program.status().to_string();
    for (const runtime::NodeReport& r : (*program)->report()) {
      if (r.op != "blocked_conv") continue;
      chosen.push_back(r.implementation);
      for (const std::string& refusal : r.refusals)
        measured += refusal.find(": measured ") != std::string::npos ? 1 : 0;
    }
  }
  unsetenv("DEEPSEEK_CACHE");
  if (chosen.empty()) GTEST_SKIP() << "no code generator for this CPU";
  ASSERT_EQ(chosen.size(), 2u);
  EXPECT_EQ(chosen[0], chosen[1]);
  EXPECT_EQ(measured, 1u);  // while the first was compiled
  EXPECT_FALSE(std::filesystem::is_empty(folder_));
}

}  // namespace
}  // namespace deepseek::backends::cpu
