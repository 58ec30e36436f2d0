#include "tune/samplers/sampler.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "base/strings.h"

namespace deepseek::tune {
namespace {

// Draws before a finite space is gone through from its beginning.
constexpr int64_t kDraws = 200, kDrawsWhereConstrained = 20000;
constexpr size_t kListed = 1'000'000;

struct Named {
  const char* name;
  std::shared_ptr<Sampler> (*make)();
};
constexpr Named kSamplers[] = {{"random", make_random_sampler}, {"qmc", make_qmc_sampler},
                               {"grid", make_grid_sampler},     {"tpe", make_tpe_sampler},
                               {"gp", make_gp_sampler},         {"cmaes", make_cmaes_sampler},
                               {"hybrid", make_hybrid_sampler}};

}  // namespace

std::vector<std::string> sampler_names() {
  std::vector<std::string> names;
  for (const Named& s : kSamplers) names.emplace_back(s.name);
  return names;
}

Result<std::shared_ptr<Sampler>> make_sampler(const std::string& name) {
  for (const Named& s : kSamplers)
    if (name == s.name) return s.make();
  return invalid("unknown sampler '{}'{}; known: {}", name, did_you_mean(name, sampler_names()),
                 join(sampler_names(), ", "));
}

Observations observe(const Setting& setting, const std::vector<Trial>& trials) {
  Observations o;
  for (const Trial& t : trials) {
    if (t.point.empty()) continue;
    // One that was stopped on its way counts by how far it came.
    const bool stopped = t.state == TrialState::kPruned || t.state == TrialState::kPaused;
    if (t.state == TrialState::kRunning) o.pending.push_back(&t);
    if (!is_finished(t.state) && !stopped) continue;
    std::vector<double> losses = t.values;
    if (stopped && setting.objectives() == 1 && !t.reports.empty()) losses = {t.reports.back().value};
    const bool good = t.state != TrialState::kFailed && losses.size() == setting.objectives() &&
                      std::all_of(losses.begin(), losses.end(), [](double v) { return std::isfinite(v); });
    if (!good) {
      // A stopped trial without a report tells nothing.
      if (!stopped || !t.reports.empty()) o.failed.push_back(&t);
      continue;
    }
    for (size_t k = 0; k < losses.size(); ++k)
      if (setting.directions[k] == Direction::kMaximize) losses[k] = -losses[k];
    double violation = 0;
    for (const double c : t.constraints) violation += std::isfinite(c) ? std::max(c, 0.0) : 1e300;
    o.finished.push_back(&t);
    o.losses.push_back(std::move(losses));
    o.violations.push_back(violation);
  }
  return o;
}

struct Seen::Set {
  std::unordered_set<Point, PointHash, PointEqual> points;
};

Seen::Seen(const Setting& setting, const std::vector<Trial>& trials)
    : set_(std::make_shared<Set>()), cardinality_(setting.space.cardinality()) {
  set_->points.reserve(trials.size() * 2);
  for (const Trial& t : trials)
    if (!t.point.empty()) set_->points.insert(t.point);
}
bool Seen::contains(const Point& point) const { return set_->points.contains(point); }
size_t Seen::size() const { return set_->points.size(); }

Result<Point> first_new(const Setting& setting, const Seen& seen, const std::function<Point(int64_t)>& draw) {
  const double cardinality = setting.space.cardinality();
  const auto gone_through = [&] {
    return make_error(ErrorCode::kNotFound, "all {:.0f} points of the space have been tried", cardinality);
  };
  if (seen.exhausted()) return gone_through();
  const auto allowed = [&](const Point& p) { return !setting.allowed || setting.allowed(p); };
  const int64_t draws = setting.allowed ? kDrawsWhereConstrained : kDraws;
  for (int64_t k = 0; k < draws; ++k) {
    Point p = draw(k);
    if (!seen.contains(p) && allowed(p)) return p;
  }
  if (cardinality <= static_cast<double>(kListed)) {
    for (const Point& p : setting.space.all(kListed))
      if (!seen.contains(p) && allowed(p)) return p;
    if (setting.allowed)
      return make_error(ErrorCode::kNotFound, "all points of the space that the constraints allow have been tried");
    return gone_through();
  }
  if (setting.allowed)
    return invalid("the constraints allowed none of {} points; loosen them, or give ranges where they hold", draws);
  // Duplicates alone in a space that large: a sampler that repeats itself. One more is better than none.
  return draw(draws);
}

}  // namespace deepseek::tune
