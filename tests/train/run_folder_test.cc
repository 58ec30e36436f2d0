// The folder of a run: what is moved, what is locked, what is followed; and what a resumed run must keep.
#include "train/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <sstream>

#include "train/resume.h"

namespace deepseek::train {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string read(const fs::path& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

class RunFolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("deepseek_run_folder_test_" + std::to_string(::getpid()) + "_" +
                                         ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::create_directories(root_);
  }
  void TearDown() override { fs::remove_all(root_); }
  std::string path(const char* name) const { return (root_ / name).string(); }
  // A run that has left a checkpoint.
  void finished(const char* name) {
    RunFolder folder = *RunFolder::at(path(name));
    ASSERT_TRUE(folder.begin().ok());
    ASSERT_TRUE(folder.write("last.safetensors", "x").ok());
  }
  fs::path root_;
};

TEST_F(RunFolderTest, ASlashAtTheEndIsNone) {
  finished("run/");
  RunFolder again = *RunFolder::at(path("run//"));
  const Result<std::string> moved = again.begin();
  ASSERT_TRUE(moved.ok()) << moved.status().to_string();
  EXPECT_EQ(*moved, "the earlier run in " + path("run") + " is now " + path("run.1"));
  EXPECT_EQ(read(root_ / "run.1/last.safetensors"), "x");
  EXPECT_FALSE(fs::exists(root_ / "run/last.safetensors"));
}

TEST_F(RunFolderTest, OneTrainingAtATime) {
  RunFolder first = *RunFolder::at(path("run"));
  ASSERT_TRUE(first.begin().ok());
  ASSERT_TRUE(first.write("last.safetensors", "first").ok());
  RunFolder second = *RunFolder::at(path("run"));
  const std::string expected =
      "another training (process " + std::to_string(::getpid()) + ") writes to '" + path("run");
  EXPECT_THAT(second.begin().status().message(), HasSubstr(expected));
  EXPECT_THAT(second.resume().message(), HasSubstr(expected));
  EXPECT_EQ(read(root_ / "run/last.safetensors"), "first");
  EXPECT_FALSE(fs::exists(root_ / "run.1"));
  first = RunFolder();
  EXPECT_FALSE(fs::exists(root_ / "run/lock"));
  EXPECT_TRUE(second.resume().ok());
}

TEST_F(RunFolderTest, AKilledProcessHoldsNoLock) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    RunFolder folder = *RunFolder::at(path("run"));
    const char ok = folder.begin().ok() && folder.write("last.safetensors", "x").ok() ? 'y' : 'n';
    (void)!::write(ready[1], &ok, 1);
    ::pause();
    ::_exit(0);
  }
  char ok = 'n';
  ASSERT_EQ(::read(ready[0], &ok, 1), 1);
  ASSERT_EQ(ok, 'y');
  RunFolder folder = *RunFolder::at(path("run"));
  EXPECT_THAT(folder.resume().message(), HasSubstr("another training (process " + std::to_string(child)));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(folder.resume().ok());
}

TEST_F(RunFolderTest, PlantedFilesAreNotFollowed) {
  std::ofstream(root_ / "victim") << "precious";
  for (const char* name : {"log.txt", "lock"}) {
    fs::remove_all(root_ / "run");
    fs::create_directories(root_ / "run");
    fs::create_symlink(root_ / "victim", root_ / "run" / name);
    EXPECT_THAT(RunFolder::at(path("run"))->begin().status().message(), HasSubstr("it is a symbolic link")) << name;
    fs::remove(root_ / "run" / name);
    ASSERT_EQ(::mkfifo((root_ / "run" / name).c_str(), 0600), 0);
    EXPECT_FALSE(RunFolder::at(path("run"))->begin().ok()) << name;  // and does not wait for a reader
  }
  EXPECT_EQ(read(root_ / "victim"), "precious");
}

TEST_F(RunFolderTest, LinesFromBeforeTheFolderAreInTheLog) {
  RunFolder folder = *RunFolder::at(path("run"));
  folder.log("early");
  EXPECT_FALSE(fs::exists(root_ / "run"));
  ASSERT_TRUE(folder.begin().ok());
  folder.log("late");
  EXPECT_EQ(read(root_ / "run/log.txt"), "early\nlate\n");
}

TEST_F(RunFolderTest, ErrorsSayWhatToDo) {
  EXPECT_THAT(RunFolder::at(std::string("a\0b", 3)).status().message(), HasSubstr("has a NUL character"));
  EXPECT_THAT(RunFolder::at(path("none"))->resume().message(),
              HasSubstr("none/last.safetensors'; train without resume"));
  EXPECT_FALSE(fs::exists(root_ / "none"));
  finished("run");
  EXPECT_THAT(RunFolder::at(path("run/."))->begin().status().message(), HasSubstr("cannot be moved"));
  std::ofstream(root_ / "file") << "x";
  EXPECT_THAT(RunFolder::at(path("file"))->begin().status().message(),
              HasSubstr("train.output: cannot make the folder"));
}

TEST(ResumeTest, ComparesWhatDecidesTheNumbers) {
  TrainerOptions begun;
  begun.optimizer.name = "adam";
  const auto labelled = [](double label) {
    return *data::ArrayDataset::create(
        {{.name = "x"}, {.name = "y", .role = data::Role::kTarget, .class_names = {"a"}}},
        {{"x", graph::Tensor::zeros(DType::kF32, {3, 2})}, {"y", graph::Tensor::full(DType::kI64, {3}, label)}});
  };
  const data::DatasetPtr d = labelled(0), other = labelled(1);
  const Settings was = *run_settings(begun, *d, nullptr, {"accuracy"}, "accuracy", false);
  TrainerOptions now = begun;
  now.train.epochs = 9, now.train.threads = 3, now.train.output = "elsewhere", now.train.patience = 4;
  now.memory.limit = "1GiB";
  SettingChanges changes = compare_settings(was, *run_settings(now, *d, nullptr, {"accuracy"}, "accuracy", false));
  EXPECT_THAT(changes.refused, ElementsAre());
  EXPECT_THAT(changes.allowed, ElementsAre());
  now.train.batch_size = 8, now.train.accumulate = 2, now.train.seed = 1, now.train.precision = "bfloat16";
  now.optimizer.learning_rate = 0.25;
  now.loss.params["label_smoothing"] = "0.1";
  changes = compare_settings(was, *run_settings(now, *other, d.get(), {"f1"}, "f1", false));
  EXPECT_THAT(changes.allowed, ElementsAre("optimizer.learning_rate: 0.001 when the run began, 0.25 now"));
  EXPECT_THAT(
      changes.refused,
      ElementsAre("train.accumulate: 1 when the run began, 2 now", "train.batch_size: 64 when the run began, 8 now",
                  "train.metrics: [accuracy] when the run began, [f1] now",
                  "train.monitor: \"accuracy\" when the run began, \"f1\" now",
                  "train.precision: \"float32\" when the run began, \"bfloat16\" now",
                  "train.seed: 0 when the run began, 1 now",
                  HasSubstr("training data: 3 samples x f32[2] -> y i64[], checksum "),
                  HasSubstr("validation data: none when the run began, 3 samples x f32[2] -> y i64[], checksum "),
                  "loss.label_smoothing: not given when the run began, 0.1 now"));
  EXPECT_TRUE(compare_settings({}, was).refused.empty());  // a checkpoint of before there were settings
}

}  // namespace
}  // namespace deepseek::train
