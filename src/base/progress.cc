#include "base/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ctime>

namespace deepseek {

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  const int64_t s = std::llround(seconds);
  return s >= 3600 ? fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
                   : fmt::format("{}:{:02}", s / 60, s % 60);
}

std::string moment_text(double seconds) {
  constexpr double kFirst = -62135596800, kLast = 253402300799;  // of the years 1 and 9999
  if (!(seconds >= kFirst && seconds <= kLast)) return "-";
  const std::time_t time = static_cast<std::time_t>(seconds);
  std::tm parts{};
  if (!gmtime_r(&time, &parts)) return "-";
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02} UTC", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday,
                     parts.tm_hour, parts.tm_min);
}

std::string progress_line(int64_t done, int64_t first, int64_t total, int64_t items, double seconds,
                          const std::string& unit, const std::string& text) {
  constexpr int64_t kWidth = 24;
  const int64_t filled = std::clamp<int64_t>(kWidth * done / std::max<int64_t>(total, 1), 0, kWidth);
  const double left = done > first && seconds > 0
                          ? static_cast<double>(total - done) * seconds / static_cast<double>(done - first)
                          : -1;
  const double rate = seconds > 0 ? static_cast<double>(items) / seconds : 0;
  return fmt::format("[{}{}] {}/{}  {:.1f} {}/s  {} left  {}", std::string(static_cast<size_t>(filled), '#'),
                     std::string(static_cast<size_t>(kWidth - filled), '.'), done, total, rate, unit,
                     duration_text(left), text);
}

ProgressBar::ProgressBar(std::string unit, bool terminal, Write write)
    : unit_(std::move(unit)), terminal_(terminal), write_(std::move(write)) {}

void ProgressBar::update(int64_t done, int64_t first, int64_t total, int64_t items,
                         const std::function<std::string()>& text) {
  const Clock::time_point now = Clock::now();
  const auto pause = terminal_ ? std::chrono::milliseconds(200) : std::chrono::milliseconds(10000);
  if (now - drawn_ < pause && done != total) return;
  drawn_ = now;
  const std::string line =
      progress_line(done, first, total, items, std::chrono::duration<double>(now - start_).count(), unit_, text());
  write_(terminal_ ? "\r\033[K" + line : line + "\n");
  open_ = terminal_;
}

void ProgressBar::clear() {
  if (open_) write_("\n");
  open_ = false;
}

}  // namespace deepseek
