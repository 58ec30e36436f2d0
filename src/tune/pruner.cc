#include "tune/pruner.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>

#include "base/random.h"
#include "base/strings.h"

namespace deepseek::tune {
namespace {

using Parameters = std::map<std::string, double>;

// Losses: smaller is better.
double loss_of(double value, Direction direction) { return direction == Direction::kMaximize ? -value : value; }

// The best value up to and including `step`; none before the first report.
std::optional<double> best_until(const Trial& trial, int64_t step, Direction direction) {
  std::optional<double> best;
  for (const Report& r : trial.reports)
    if (r.step <= step && !std::isnan(r.value)) {
      const double loss = loss_of(r.value, direction);
      best = best ? std::min(*best, loss) : loss;
    }
  return best;
}
std::optional<double> at_step(const Trial& trial, int64_t step, Direction direction) {
  for (const Report& r : trial.reports)
    if (r.step == step && !std::isnan(r.value)) return loss_of(r.value, direction);
  return std::nullopt;
}

class None : public Pruner {
 public:
  bool stops(const Trial&, const std::vector<Trial>&, Direction) const override { return false; }
};

// The trial's best value against the given percentile of complete trials' values at the same step.
class Percentile : public Pruner {
 public:
  explicit Percentile(Parameters p) : p_(std::move(p)) {}
  bool stops(const Trial& trial, const std::vector<Trial>& trials, Direction direction) const override {
    const int64_t step = trial.reports.back().step;
    if (static_cast<double>(step) < p_.at("warmup_steps")) return false;
    std::vector<double> others;
    double complete = 0;
    for (const Trial& t : trials) {
      if (t.state != TrialState::kComplete) continue;
      ++complete;
      if (const auto loss = at_step(t, step, direction)) others.push_back(*loss);
    }
    if (complete < p_.at("startup_trials") || others.empty()) return false;
    const auto best = best_until(trial, step, direction);
    if (!best) return true;  // nothing but NaN
    std::sort(others.begin(), others.end());
    const double at = p_.at("percentile") / 100 * static_cast<double>(others.size() - 1);
    const auto below = static_cast<size_t>(at);
    const double above = others[std::min(below + 1, others.size() - 1)];
    return *best > others[below] + (at - static_cast<double>(below)) * (above - others[below]);
  }

 private:
  Parameters p_;
};

// Asynchronous successive halving: at a rung a trial stops unless it is among the best 1 / factor of those that came
// there; paused there, it goes on once it is.
class SuccessiveHalving : public Pruner {
 public:
  explicit SuccessiveHalving(Parameters p) : p_(std::move(p)) {}
  bool stops(const Trial& trial, const std::vector<Trial>& trials, Direction direction) const override {
    const int64_t step = trial.reports.back().step;
    const double factor = p_.at("factor");
    const int64_t bracket = bracket_of(trial.number);
    double rung = p_.at("min_step") * std::pow(factor, static_cast<double>(bracket));
    while (std::round(rung) < static_cast<double>(step)) rung *= factor;
    if (std::round(rung) != static_cast<double>(step)) return false;
    const auto mine = at_step(trial, step, direction);
    if (!mine) return true;  // NaN
    std::vector<double> here;
    for (const Trial& t : trials)
      if (t.number != trial.number && bracket_of(t.number) == bracket)
        if (const auto loss = at_step(t, step, direction)) here.push_back(*loss);
    here.push_back(*mine);
    const size_t kept = std::max<size_t>(1, static_cast<size_t>(static_cast<double>(here.size()) / factor));
    std::nth_element(here.begin(), here.begin() + static_cast<int64_t>(kept) - 1, here.end());
    return *mine > here[kept - 1];
  }

  bool pauses() const override { return true; }
  std::optional<int64_t> resumes(const std::vector<Trial>& trials, Direction direction) const override {
    struct Here {
      double loss;
      const Trial* trial;
    };
    std::map<std::pair<int64_t, int64_t>, std::vector<Here>> rungs;  // by step and bracket
    for (const Trial& t : trials) {
      double rung = p_.at("min_step") * std::pow(p_.at("factor"), static_cast<double>(bracket_of(t.number)));
      for (; !t.reports.empty() && std::round(rung) <= static_cast<double>(t.reports.back().step);
           rung *= p_.at("factor")) {
        const auto step = static_cast<int64_t>(std::round(rung));
        if (const auto loss = at_step(t, step, direction)) rungs[{step, bracket_of(t.number)}].push_back({*loss, &t});
      }
    }
    for (auto rung = rungs.rbegin(); rung != rungs.rend(); ++rung) {  // those that are farthest first
      auto& here = rung->second;
      std::sort(here.begin(), here.end(), [](const Here& a, const Here& b) {
        return a.loss != b.loss ? a.loss < b.loss : a.trial->number < b.trial->number;
      });
      const auto kept = static_cast<size_t>(static_cast<double>(here.size()) / p_.at("factor"));
      for (size_t k = 0; k < kept; ++k)
        if (here[k].trial->state == TrialState::kPaused && here[k].trial->reports.back().step == rung->first.first)
          return here[k].trial->number;
    }
    return std::nullopt;
  }

 private:
  // Brackets take turns, each as often as its first rung is cheap (Hyperband: Li et al., 2018).
  int64_t bracket_of(int64_t number) const {
    const auto brackets = static_cast<int64_t>(p_.at("brackets"));
    if (brackets <= 1) return 0;
    std::vector<double> weights;
    double total = 0;
    for (int64_t b = 0; b < brackets; ++b) {
      weights.push_back(std::pow(p_.at("factor"), static_cast<double>(brackets - 1 - b)) *
                        static_cast<double>(brackets) / static_cast<double>(brackets - b));
      total += weights.back();
    }
    double at = deepseek::uniform(hash_of(0x68626e64, static_cast<uint64_t>(number))) * total;
    for (int64_t b = 0; b < brackets; ++b)
      if ((at -= weights[static_cast<size_t>(b)]) < 0) return b;
    return brackets - 1;
  }
  Parameters p_;
};

class Patience : public Pruner {
 public:
  explicit Patience(Parameters p) : p_(std::move(p)) {}
  bool stops(const Trial& trial, const std::vector<Trial>&, Direction direction) const override {
    const int64_t step = trial.reports.back().step;
    const auto before = best_until(trial, step - static_cast<int64_t>(p_.at("steps")), direction);
    if (!before) return false;
    return *best_until(trial, step, direction) > *before - p_.at("min_delta") ||
           (p_.at("min_delta") == 0 && *best_until(trial, step, direction) == *before);
  }

 private:
  Parameters p_;
};

class Threshold : public Pruner {
 public:
  explicit Threshold(Parameters p) : p_(std::move(p)) {}
  bool stops(const Trial& trial, const std::vector<Trial>&, Direction) const override {
    const double value = trial.reports.back().value;
    return !(value >= p_.at("low") && value <= p_.at("high"));
  }

 private:
  Parameters p_;
};

template <class T>
std::shared_ptr<Pruner> make(Parameters p) {
  return std::make_shared<T>(std::move(p));
}
std::shared_ptr<Pruner> make_none(Parameters) { return std::make_shared<None>(); }

struct Named {
  const char* name;
  Parameters defaults;
  std::shared_ptr<Pruner> (*make)(Parameters);
};
const std::vector<Named>& pruners() {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  static const std::vector<Named> list = {
      {"none", {}, make_none},
      {"median", {{"percentile", 50}, {"warmup_steps", 0}, {"startup_trials", 5}}, make<Percentile>},
      {"percentile", {{"percentile", 25}, {"warmup_steps", 0}, {"startup_trials", 5}}, make<Percentile>},
      {"asha", {{"min_step", 1}, {"factor", 3}, {"brackets", 1}}, make<SuccessiveHalving>},
      {"hyperband", {{"min_step", 1}, {"factor", 3}, {"brackets", 3}}, make<SuccessiveHalving>},
      {"patience", {{"steps", 10}, {"min_delta", 0}}, make<Patience>},
      {"threshold", {{"low", -kInfinity}, {"high", kInfinity}}, make<Threshold>}};
  return list;
}

}  // namespace

std::vector<std::string> pruner_names() {
  std::vector<std::string> names;
  for (const Named& p : pruners()) names.emplace_back(p.name);
  return names;
}

Result<std::shared_ptr<Pruner>> make_pruner(const std::string& text) {
  const size_t open = text.find('(');
  const std::string name(trim(std::string_view(text).substr(0, open)));
  for (const Named& p : pruners()) {
    if (name != p.name) continue;
    Parameters parameters = p.defaults;
    if (open != std::string::npos) {
      if (!text.ends_with(')')) return invalid("pruner '{}': expected a closing parenthesis", text);
      for (const std::string& part : split(std::string_view(text).substr(open + 1, text.size() - open - 2), ',')) {
        if (trim(part).empty()) continue;
        const size_t equals = part.find('=');
        const std::string key(trim(std::string_view(part).substr(0, equals)));
        const auto value =
            equals == std::string::npos ? std::nullopt : parse_number(trim(std::string_view(part).substr(equals + 1)));
        std::vector<std::string> known;
        for (const auto& [k, v] : p.defaults) known.push_back(k);
        if (!parameters.contains(key) || (name == "median" && key == "percentile"))
          return invalid("pruner '{}': unknown parameter '{}'{}; known: {}", name, key, did_you_mean(key, known),
                         join(known, ", "));
        if (!value) return invalid("pruner '{}': {}: expected a number in '{}'", name, key, part);
        parameters[key] = *value;
      }
    }
    if (parameters.contains("factor") &&
        (parameters["factor"] <= 1 || parameters["min_step"] < 1 || parameters["brackets"] < 1))
      return invalid("pruner '{}': expected factor above 1, min_step and brackets of at least 1", text);
    if (parameters.contains("percentile") && !(parameters["percentile"] >= 0 && parameters["percentile"] <= 100))
      return invalid("pruner '{}': percentile: expected 0 to 100, got {}", text, parameters["percentile"]);
    return p.make(std::move(parameters));
  }
  return invalid("unknown pruner '{}'{}; known: {}", name, did_you_mean(name, pruner_names()),
                 join(pruner_names(), ", "));
}

}  // namespace deepseek::tune
