// Progress of long work as one line: bar, counts, throughput and time left. Rates are total over total since the start,
// not means of rates, so pauses (validation, saving) count. Test: tests/base/progress_test.cc
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

namespace deepseek {

// "[####....] 40/120  310.5 samples/s  0:42 left  text". `done` - `first` steps and `items` items took `seconds`.
std::string progress_line(int64_t done, int64_t first, int64_t total, int64_t items, double seconds,
                          const std::string& unit, const std::string& text);
// 42 -> "0:42", 3723 -> "1:02:03", unknown (negative or not finite) -> "?".
std::string duration_text(double seconds);
// Seconds since 1970 as "2024-01-31 12:00 UTC"; what is in no year from 1 to 9999 as "-".
std::string moment_text(double seconds);

// Draws the line: on a terminal it is redrawn five times a second, elsewhere a new line appears every ten seconds.
class ProgressBar {
 public:
  using Write = std::function<void(const std::string&)>;
  ProgressBar(std::string unit, bool terminal, Write write);

  // `first` of a resumed run is where it went on; `items` counts from there.
  // `text` is asked for only when the line is drawn.
  void update(int64_t done, int64_t first, int64_t total, int64_t items, const std::function<std::string()>& text);
  // Ends an open line, so that other text can follow.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  std::string unit_;
  bool terminal_;
  Write write_;
  Clock::time_point start_ = Clock::now(), drawn_;
  bool open_ = false;
};

}  // namespace deepseek
