#include "train/metric_set.h"

#include <algorithm>

#include "base/strings.h"

namespace deepseek::train {

using graph::Tensor;
using graph::TensorType;

bool Comparison::fits(const TensorType& output_type, const TensorType& target_type) const {
  if (task != Task::kMulticlass) return output_type.num_elements() == target_type.num_elements();
  const graph::Dims& dims = output_type.dims;
  if (dims.size() < 2 || dims[0] == 0 || dims[1] == 0) return false;
  const int64_t n = output_type.num_elements();
  return target_type.num_elements() == (is_float(target_type.dtype) ? n : n / dims[1]);
}

Result<MetricSet> MetricSet::create(const std::vector<std::string>& asked, const std::vector<Comparison>& comparisons) {
  MetricSet set;
  if (asked == std::vector<std::string>{"none"}) return set;
  std::vector<std::vector<std::string>> names(comparisons.size());
  std::vector<std::string> problems, targets;
  for (const Comparison& c : comparisons) targets.push_back(c.target);
  for (size_t i = 0; asked.empty() && i < comparisons.size(); ++i) names[i] = Metrics::defaults(comparisons[i].task);
  for (const std::string& name : asked) {
    const size_t slash = name.rfind('/');
    const std::string target = slash == std::string::npos ? "" : name.substr(0, slash);
    const std::string metric = slash == std::string::npos ? name : name.substr(slash + 1);
    if (!target.empty() && std::find(targets.begin(), targets.end(), target) == targets.end()) {
      problems.push_back(fmt::format("metric '{}': nothing is compared with a target '{}'; targets: {}", name, target,
                                     targets.empty() ? "none" : join(targets, ", ")));
      continue;
    }
    Status last;
    bool fits = false;
    for (size_t i = 0; i < comparisons.size(); ++i) {
      if (!target.empty() && targets[i] != target) continue;
      if (Result<Metrics> tried = Metrics::create({metric}, comparisons[i].task); !tried.ok()) {
        last = tried.status();
      } else {
        fits = true;
        if (std::find(names[i].begin(), names[i].end(), metric) == names[i].end()) names[i].push_back(metric);
      }
    }
    if (fits) continue;
    problems.push_back(comparisons.empty() ? fmt::format("metric '{}': the model has no output that a target can be "
                                                         "compared with; metrics none leaves them out",
                                                         name)
                                           : last.message());
  }
  if (!problems.empty()) {
    for (std::string& p : problems)
      if (p.starts_with("train.metrics: ")) p = p.substr(15);
    return invalid("train.metrics: {}", join(problems, "\n"));
  }
  for (size_t i = 0; i < comparisons.size(); ++i) {
    for (const std::string& name : names[i])
      set.names_.push_back(comparisons.size() == 1 ? name : comparisons[i].target + "/" + name);
    DS_ASSIGN(Metrics metrics, Metrics::create(names[i], comparisons[i].task, comparisons[i].ignored));
    set.parts_.push_back({comparisons[i], std::move(metrics)});
  }
  return set;
}

Status MetricSet::add(const std::map<std::string, Tensor>& outputs, const data::Batch& batch) {
  for (Part& part : parts_) {
    const auto output = outputs.find(part.comparison.output);
    const auto target = batch.find(part.comparison.target);
    if (output == outputs.end() || target == batch.end())
      return internal_error("metrics compare '{}' with '{}', which the step lacks", part.comparison.output,
                            part.comparison.target);
    DS_TRY(part.metrics.add(output->second, target->second));
  }
  return {};
}

std::vector<double> MetricSet::values() const {
  std::vector<double> all;
  for (const Part& part : parts_) {
    const std::vector<double> own = part.metrics.values();
    all.insert(all.end(), own.begin(), own.end());
  }
  return all;
}

std::vector<MetricSet::Confusion> MetricSet::confusions() const {
  std::vector<Confusion> all;
  for (const Part& part : parts_)
    if (!part.metrics.confusion().empty())
      all.push_back({part.comparison.target, part.metrics.classes(), part.metrics.confusion()});
  return all;
}

// Of each part the count of its numbers, then these.
std::vector<double> MetricSet::state() const {
  std::vector<double> all;
  for (const Part& part : parts_) {
    const std::vector<double> own = part.metrics.state();
    all.push_back(static_cast<double>(own.size()));
    all.insert(all.end(), own.begin(), own.end());
  }
  return all;
}

Status MetricSet::set_state(const std::vector<double>& state) {
  size_t at = 0;
  for (Part& part : parts_) {
    const double count = at < state.size() ? state[at] : -1;
    if (!(count >= 0 && count <= static_cast<double>(state.size() - at - 1)))
      return make_error(ErrorCode::kDataCorrupt, "the metrics' state of {} numbers is damaged", state.size());
    const auto begin = state.begin() + static_cast<std::ptrdiff_t>(at + 1);
    DS_TRY(part.metrics.set_state({begin, begin + static_cast<std::ptrdiff_t>(count)}));
    at += 1 + static_cast<size_t>(count);
  }
  if (at != state.size())
    return make_error(ErrorCode::kDataCorrupt, "the metrics' state has {} numbers, expected {}", state.size(), at);
  return {};
}

}  // namespace deepseek::train
