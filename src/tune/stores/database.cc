#include "tune/stores/database.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>
#include <random>
#include <thread>

#include "base/console.h"
#include "base/strings.h"

namespace deepseek::tune {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point then) { return std::chrono::duration<double>(Clock::now() - then).count(); }

Status pause_for(double seconds, const Patience& patience, const std::string& label) {
  const Clock::time_point from = Clock::now();
  for (;;) {
    if (is_cancelled(patience)) return cancelled_error(label);
    const double left = seconds - seconds_since(from);
    if (left <= 0) return {};
    std::this_thread::sleep_for(std::chrono::duration<double>(std::min(left, 0.1)));
  }
}

}  // namespace

int64_t integer_of(const Value& value) {
  const auto* number = std::get_if<int64_t>(&value);
  return number ? *number : 0;
}

double number_of(const Value& value) {
  if (const auto* number = std::get_if<double>(&value)) return *number;
  if (const auto* number = std::get_if<int64_t>(&value)) return static_cast<double>(*number);
  return std::numeric_limits<double>::quiet_NaN();
}

std::string text_of(const Value& value) {
  const auto* text = std::get_if<std::string>(&value);
  return text ? *text : std::string();
}

bool is_cancelled(const Patience& patience) { return patience.cancelled && patience.cancelled(); }

Status cancelled_error(const std::string& label) {
  return make_error(ErrorCode::kInterrupted, "interrupted while waiting for {}", label);
}

Result<std::unique_ptr<Database>> make_database(const std::string& url, bool create, const Patience& patience) {
  constexpr std::string_view kFile = "sqlite:///";
  std::string path;
  if (url.starts_with("postgresql://") || url.starts_with("postgres://")) return make_postgres(url, patience);
  if (url.starts_with(kFile)) {
    path = url.substr(kFile.size());
  } else if (url.find("://") == std::string::npos &&
             (url.ends_with(".db") || url.ends_with(".sqlite") || url.ends_with(".sqlite3"))) {
    path = url;
  }
  if (path.empty() || path == ":memory:" || path.find('\0') != std::string::npos)
    return invalid(
        "store '{}': expected sqlite:///relative.db, sqlite:////absolute.db, a path that ends in .db or .sqlite, or "
        "postgresql://user@host/name",
        // Not all of another kind of URL, which may hold a password.
        url.starts_with("sqlite:") ? url : url.substr(0, url.find("://")));
  return make_sqlite(std::move(path), create, patience);
}

Status persist(Database& database, const Patience& patience, const std::function<Status()>& attempt) {
  constexpr double kFirstPause = 0.1, kLongestPause = 5;
  std::optional<Clock::time_point> since;
  double pause = kFirstPause;
  bool told = false;
  for (;;) {
    database.forget_failure();
    const bool was_connected = database.connected();
    Status status = was_connected ? Status() : database.connect();
    if (status.ok()) status = attempt();
    const Failure failure = database.failure();
    if (status.ok() || (failure != Failure::kLost && failure != Failure::kConflict)) {
      if (told && database.connected())
        print_err("{}: connected again after {:.1f} s\n", database.label(), seconds_since(*since));
      return status;
    }
    if (!since) {
      since = Clock::now();
      // The server may have gone and come while nothing was asked of it.
      if (was_connected && failure == Failure::kLost) continue;
    }
    const double left = patience.seconds - seconds_since(*since);
    if (left <= 0)
      return make_error(ErrorCode::kIo, "{}; given up after {:.1f} s; {}", status.message(), patience.seconds,
                        failure == Failure::kLost
                            ? "check that the server runs and can be reached; the study is as it was"
                            : "other transactions got in the way each time");
    if (failure == Failure::kConflict) {
      static thread_local std::minstd_rand random{std::random_device()()};
      DS_TRY(pause_for(std::uniform_real_distribution<double>(0.001, 0.02)(random), patience, database.label()));
      continue;
    }
    if (!told) print_err("{}; waiting up to {:.0f} s\n", status.message(), patience.seconds);
    told = true;
    DS_TRY(pause_for(std::min(pause, left), patience, database.label()));
    pause = std::min(2 * pause, kLongestPause);
  }
}

}  // namespace deepseek::tune
