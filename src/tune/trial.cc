#include "tune/trial.h"

namespace deepseek::tune {

const char* to_string(TrialState state) {
  static constexpr const char* kNames[] = {"waiting", "running", "paused", "complete", "pruned", "failed"};
  return kNames[static_cast<size_t>(state)];
}

Result<TrialState> parse_trial_state(std::string_view text) {
  for (const TrialState s : {TrialState::kWaiting, TrialState::kRunning, TrialState::kPaused, TrialState::kComplete,
                             TrialState::kPruned, TrialState::kFailed})
    if (text == to_string(s)) return s;
  return make_error(ErrorCode::kDataCorrupt, "unknown state of a trial: '{}'", text);
}

}  // namespace deepseek::tune
