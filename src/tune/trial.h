// One evaluation of the objective: where, what came out, and how it went on. Test: tests/tune/study_test.cc
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tune/space.h"

namespace deepseek::tune {

enum class Direction { kMinimize, kMaximize };

enum class TrialState { kWaiting, kRunning, kPaused, kComplete, kPruned, kFailed };

constexpr bool is_finished(TrialState s) {
  return s == TrialState::kComplete || s == TrialState::kPruned || s == TrialState::kFailed;
}
const char* to_string(TrialState state);
Result<TrialState> parse_trial_state(std::string_view text);

struct Report {
  int64_t step;
  double value;
};

struct Trial {
  int64_t number = 0;
  TrialState state = TrialState::kRunning;
  Point point;                      // empty while waiting for a worker without one
  std::vector<double> values;       // one per objective, as the user gave them; empty unless complete
  std::vector<double> constraints;  // black-box constraints, fulfilled where <= 0
  std::vector<Report> reports;      // intermediate values of the first objective, by step
  std::string error;                // of a failed one
  std::string worker;               // who runs it
  std::string note;                 // JSON of the user's own
  int64_t attempts = 0;             // workers that died with it
  double started = 0, ended = 0;    // seconds since 1970
};

}  // namespace deepseek::tune
