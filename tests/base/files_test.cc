// What isn't a file is told before it is read; none of these may wait or read something else.
#include "base/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "tests/io/temp_folder.h"

namespace deepseek {
namespace {

using ::testing::HasSubstr;

TEST(Files, ReadsTextAsItIs) {
  TempFolder folder;
  const std::string text("a\r\n\0b\xff", 6);
  std::ofstream(folder / "a.txt", std::ios::binary) << text;
  ASSERT_EQ(::symlink((folder / "a.txt").c_str(), (folder / "link").c_str()), 0);
  EXPECT_EQ(read_text(folder / "a.txt").value(), text);
  EXPECT_EQ(read_text(folder / "link").value(), text);
  EXPECT_THAT(read_text(folder / "a.txt", 5).status().message(), HasSubstr("has 6 bytes, at most 5"));
}

TEST(Files, WhatIsNoFileIsAnError) {
  TempFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(read_text(folder / "pipe").status().message(), HasSubstr("is a pipe, expected a file"));
  EXPECT_EQ(read_text(folder / "pipe").status().code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(read_text("/dev/zero").status().message(), HasSubstr("is a device, expected a file"));
  EXPECT_THAT(read_text(folder.path()).status().message(), HasSubstr("the path is a folder"));
  EXPECT_EQ(read_text(folder / "none").status().code(), ErrorCode::kNotFound);
  EXPECT_THAT(read_text("").status().message(), HasSubstr("expected a path"));
}

TEST(Files, APartFromTheMiddle) {
  TempFolder folder;
  std::ofstream(folder / "a") << "0123456789";
  const Result<OpenFile> opened = open_file(folder / "a");
  ASSERT_TRUE(opened.ok());
  std::string part(4, '-');
  const auto read = [&](size_t offset) {
    return *read_at(*opened, offset, std::as_writable_bytes(std::span(part)), "a");
  };
  EXPECT_EQ(read(3), 4u);
  EXPECT_EQ(part, "3456");
  EXPECT_EQ(read(8), 2u);
  EXPECT_EQ(part, "8956");
  EXPECT_EQ(read(99), 0u);
}

TEST(Files, AZeroInAPathIsNotItsEnd) {
  TempFolder folder;
  std::ofstream(folder / "a") << "secret";
  const Status status = read_text((folder / "a") + std::string("\0.png", 5)).status();
  EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("can't hold the character 0"));
}

TEST(Files, ADescriptorIsClosedOnce) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  FileDescriptor read(ends[0]), write(ends[1]);
  FileDescriptor moved = std::move(write);
  EXPECT_EQ(write.get(), -1);
  EXPECT_EQ(moved.close(), 0);
  EXPECT_EQ(moved.close(), 0);
  char c;
  EXPECT_EQ(::read(read.get(), &c, 1), 0);  // the other end is closed
}

}  // namespace
}  // namespace deepseek
