#include "base/memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace deepseek {
namespace {

namespace fs = std::filesystem;

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

TEST(Memory, BytesHaveUnits) {
  EXPECT_EQ(*parse_bytes("8GiB"), size_t{8} << 30);
  EXPECT_EQ(*parse_bytes("500 MB"), 500'000'000u);
  EXPECT_EQ(*parse_bytes("1.5KiB"), 1536u);
  EXPECT_EQ(*parse_bytes("1000"), 1000u);
  EXPECT_EQ(*parse_bytes("1e3 kB"), 1'000'000u);
  for (const char* wrong : {"", "GiB", "8 gigs", "-1GiB", "0", "nan", "inf", "1e300GiB", "8GiB "})
    EXPECT_EQ(parse_bytes(wrong).status().message(),
              "expected an amount of memory such as 8GiB or 500MB, got '" + std::string(wrong) + "'");
}

TEST(Memory, SharesArePercentOrParts) {
  EXPECT_DOUBLE_EQ(*parse_share("20%"), 0.2);
  EXPECT_DOUBLE_EQ(*parse_share("0.25"), 0.25);
  EXPECT_DOUBLE_EQ(*parse_share("0"), 0);
  for (const char* wrong : {"100%", "1", "20", "-5%", "x", "5 percent"}) EXPECT_FALSE(parse_share(wrong).ok()) << wrong;
}

TEST(Memory, TextsAreShort) {
  EXPECT_EQ(format_bytes(100), "100 B");
  EXPECT_EQ(format_bytes(1536), "1.50 KiB");
  EXPECT_EQ(format_bytes(size_t{300} << 20), "300 MiB");
  EXPECT_EQ(format_bytes(size_t{23} << 30), "23.0 GiB");
}

TEST(Memory, ControlGroupsLimitTheMachine) {
  const fs::path root = fs::temp_directory_path() / ("deepseek_memory_test" + std::to_string(getpid()));
  const std::string name = root.string() + "/";
  write(root / "proc/meminfo", "MemTotal:       16384 kB\nMemFree:         1 kB\nMemAvailable:    2048 kB\n");
  EXPECT_EQ(machine_memory(name), size_t{16} << 20);
  EXPECT_EQ(available_memory(name), size_t{2} << 20);
  write(root / "proc/self/cgroup", "0::/job/task\n");
  write(root / "sys/fs/cgroup/job/task/memory.max", "max\n");
  write(root / "sys/fs/cgroup/job/memory.max", "8388608\n");
  EXPECT_EQ(machine_memory(name), size_t{8} << 20);  // a group above the process's own counts
  write(root / "sys/fs/cgroup/memory/memory.limit_in_bytes", "4194304\n");
  EXPECT_EQ(machine_memory(name), size_t{4} << 20);
  fs::remove_all(root);
  EXPECT_GT(machine_memory(), size_t{1} << 28);
}

}  // namespace
}  // namespace deepseek
