// A file is replaced whole or not at all, also when the writer is killed.
#include "io/atomic_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "io/safetensors.h"
#include "tests/io/temp_folder.h"

namespace deepseek::io {
namespace {

using ::testing::HasSubstr;

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

size_t files_in(const std::string& folder) {
  size_t n = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++n;
  return n;
}

TEST(AtomicFile, ReplacesContent) {
  TempFolder folder;
  const std::string path = folder / "a";
  ASSERT_TRUE(write_file_atomic(path, bytes_of("old content")).ok());
  ASSERT_TRUE(write_file_atomic(path, bytes_of("new")).ok());
  const auto back = read_file(path);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(back->data()), back->size()), "new");
  EXPECT_EQ(files_in(folder.path()), 1u);
}

TEST(AtomicFile, FailedWriterLeavesTheOldFile) {
  TempFolder folder;
  const std::string path = folder / "a";
  ASSERT_TRUE(write_file_atomic(path, bytes_of("old")).ok());
  const Status status = write_file_atomic(path, [&](const WriteBytes& write) -> Status {
    DS_TRY(write(bytes_of("half")));
    return invalid("stop here");
  });
  EXPECT_EQ(status.message(), "stop here");
  EXPECT_EQ(read_file(path)->size(), 3u);
  EXPECT_EQ(files_in(folder.path()), 1u);
}

TEST(AtomicFile, ErrorsNameReasonAndAdvice) {
  TempFolder folder;
  const Status missing = write_file_atomic(folder / "no/such/file", bytes_of("x"));
  EXPECT_EQ(missing.code(), ErrorCode::kNotFound);
  EXPECT_THAT(missing.message(), HasSubstr("cannot create"));
  EXPECT_THAT(missing.message(), HasSubstr("No such file or directory; check the path; its folder must exist"));
  EXPECT_THAT(write_file_atomic(folder.path(), bytes_of("x")).message(), HasSubstr("the path is a folder"));
  EXPECT_THAT(read_file(folder / "absent").status().message(), HasSubstr("cannot open"));
  EXPECT_THAT(system_error("write", "f", ENOSPC).message(), HasSubstr("the old file, if any, is untouched"));
}

TEST(AtomicFile, KilledWhileSavingLeavesAWholeFile) {
  TempFolder folder;
  const std::string path = folder / "weights.safetensors";
  const auto file_with = [](double value) {
    TensorFile file;
    file.tensors["w"] = graph::Tensor::full(DType::kF32, {1 << 18}, value);
    return file;
  };
  ASSERT_TRUE(save_safetensors(path, file_with(0)).ok());
  const TensorFile odd = file_with(1), even = file_with(2);
  for (int round = 0; round < 50; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (;;) {
        if (!save_safetensors(path, odd).ok() || !save_safetensors(path, even).ok()) ::_exit(1);
      }
    }
    ::usleep(static_cast<useconds_t>(500 + 397 * round));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    int state = 0;
    ASSERT_EQ(::waitpid(child, &state, 0), child);
    ASSERT_TRUE(WIFSIGNALED(state)) << "the child ended by itself with status " << state;
    const auto back = load_safetensors(path);
    ASSERT_TRUE(back.ok()) << "round " << round << ": " << back.status().to_string();
    const graph::Tensor& w = back->tensors.at("w");
    const double first = w.at(0);
    for (int64_t i = 0; i < w.num_elements(); ++i) ASSERT_EQ(w.at(i), first) << "mixed content at " << i;
  }
}

}  // namespace
}  // namespace deepseek::io
