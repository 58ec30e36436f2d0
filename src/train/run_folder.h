// A run's folder: config.yaml, environment.txt, log.txt, history.csv, TensorBoard events, last.safetensors and
// best.safetensors. Invariant: one training at a time writes to it (a lock, which ends with the process), and an
// earlier run in it is moved away, never overwritten. Without a path nothing is written. Test:
// tests/train/run_folder_test.cc
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "io/event_file.h"

namespace deepseek::train {

class RunFolder {
 public:
  RunFolder() = default;
  // "runs/x" and "runs/x/" are one. Errors: a path with a NUL.
  static Result<RunFolder> at(const std::string& path);
  RunFolder(RunFolder&& other) noexcept;
  RunFolder& operator=(RunFolder&& other) noexcept;
  ~RunFolder();

  bool kept() const { return !path_.empty(); }
  std::string path() const { return path_.string(); }
  std::string file(const char* name) const { return (path_ / name).string(); }

  // Goes on in the folder of an earlier training. Errors: kNotFound; another training writes to it.
  Status resume();
  // Takes the folder for a new run, which begins to exist here: an earlier one is moved to "<folder>.1", ".2", ....
  // Returns what to tell of that. Errors: those of the file system; another training writes to it.
  Result<std::string> begin();

  // A line of log.txt; what comes before resume() or begin() is written then. Later calls of status() tell of errors.
  void log(const std::string& line);
  Status write(const char* name, std::string_view text) const;
  // Where there is a folder that was begun or resumed.
  io::EventFile* events() { return events_ ? &*events_ : nullptr; }
  Status status() const { return log_status_; }

 private:
  Status open_files();
  void append(const std::string& line);
  void close();

  std::filesystem::path path_;
  int lock_ = -1, log_ = -1;
  std::string early_;  // lines from before there is a log
  Status log_status_;
  std::optional<io::EventFile> events_;
};

}  // namespace deepseek::train
