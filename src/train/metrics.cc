#include "train/metrics.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/strings.h"

namespace deepseek::train {

using graph::Tensor;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// k of "top<k>", 0 for other names.
int64_t top_k(const std::string& name) {
  int64_t k = 0;
  if (!name.starts_with("top")) return 0;
  const auto [end, error] = std::from_chars(name.data() + 3, name.data() + name.size(), k);
  return error == std::errc() && end == name.data() + name.size() && k > 0 ? k : 0;
}

bool is_regression(const std::string& name) { return name == "mae" || name == "rmse" || name == "r2"; }

bool is_classification(const std::string& name) {
  return name == "accuracy" || name == "precision" || name == "recall" || name == "f1" || name == "auc" ||
         top_k(name) > 0;
}

double ratio(double a, double b) { return b == 0 ? 0 : a / b; }

// Area under the ROC curve by rank sums, ties at their mean rank (Mann-Whitney U). NaN where a score is.
double rank_auc(std::vector<std::pair<double, bool>>& scored) {
  for (const auto& [score, positive] : scored)
    if (std::isnan(score)) return kNaN;  // it has no rank
  std::sort(scored.begin(), scored.end());
  double positives = 0, rank_sum = 0;
  for (size_t i = 0; i < scored.size();) {
    size_t end = i;
    while (end < scored.size() && scored[end].first == scored[i].first) ++end;
    const double rank = 0.5 * static_cast<double>(i + 1 + end);
    for (; i < end; ++i)
      if (scored[i].second) {
        ++positives;
        rank_sum += rank;
      }
  }
  const double negatives = static_cast<double>(scored.size()) - positives;
  if (positives == 0 || negatives == 0) return kNaN;
  return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives);
}

// log(p / (1 - p)) for p the softmax of the scores: in p's order, and distinct where p itself rounds to 0 or 1.
void add_log_odds(const std::vector<double>& scores, size_t best, std::vector<double>& to) {
  const auto but = [&](size_t left_out, double most) {  // log of the sum of e^(score - most) of the others
    double sum = 0;
    for (size_t c = 0; c < scores.size(); ++c)
      if (c != left_out) sum += std::exp(scores[c] - most);
    return std::log(sum);
  };
  double second = -std::numeric_limits<double>::infinity();
  for (size_t c = 0; c < scores.size(); ++c)
    if (c != best && !(scores[c] <= second)) second = scores[c];
  // Beside the best class, whose term is 1, any other one's can be taken out of the sum without loss.
  const double all = std::exp(but(scores.size(), scores[best]));
  for (size_t c = 0; c < scores.size(); ++c) {
    if (c == best)
      to.push_back(scores[c] - second - (std::isinf(second) ? 0 : but(c, second)));
    else
      to.push_back(std::isinf(scores[best])
                       ? scores[c] - scores[best]
                       : scores[c] - scores[best] - std::log(all - std::exp(scores[c] - scores[best])));
  }
}

// Whether a stands above b: NaN above all numbers, as NumPy's argmax has it.
bool above(double a, double b) { return std::isnan(a) ? !std::isnan(b) : a > b; }

}  // namespace

Result<Metrics> Metrics::create(std::vector<std::string> names, Task task, std::optional<int64_t> ignored) {
  std::vector<std::string> problems;
  for (const std::string& name : names) {
    const bool regression = is_regression(name);
    if (!regression && !is_classification(name))
      problems.push_back(
          fmt::format("unknown metric '{}'; known: accuracy, top<k>, precision, recall, f1, auc, mae, rmse, r2", name));
    else if (regression != (task == Task::kRegression))
      problems.push_back(fmt::format("metric '{}' is for {}, the loss is one of {}", name,
                                     regression ? "regression" : "classification",
                                     regression ? "classification" : "regression"));
  }
  if (!problems.empty()) return invalid("train.metrics: {}", join(problems, "\n"));
  Metrics m;
  m.keep_scores_ = std::find(names.begin(), names.end(), "auc") != names.end();
  m.names_ = std::move(names);
  m.task_ = task;
  m.ignored_ = ignored;
  return m;
}

std::vector<std::string> Metrics::defaults(Task task) {
  if (task == Task::kRegression) return {"mae", "rmse", "r2"};
  return {"accuracy"};
}

bool Metrics::higher_is_better(const std::string& name) { return name != "loss" && name != "mae" && name != "rmse"; }

void Metrics::add_class(int64_t truth, const std::vector<double>& scores) {
  const auto n = static_cast<size_t>(classes_), t = static_cast<size_t>(truth);
  size_t best = 0, rank = 0;
  for (size_t c = 1; c < n; ++c)
    if (above(scores[c], scores[best])) best = c;
  ++confusion_[t * n + best];
  // A NaN is no score: where the true class has one it is the last.
  for (size_t c = 0; c < n; ++c)
    rank += c != t && (above(scores[c], scores[t]) || std::isnan(scores[t]) || (scores[c] == scores[t] && c < t));
  ++ranks_[rank];
  if (!keep_scores_) return;
  scores_.push_back(static_cast<double>(truth));
  add_log_odds(scores, best, scores_);
}

Status Metrics::add(const Tensor& prediction, const Tensor& target) {
  const int64_t n = prediction.num_elements();
  if (task_ == Task::kMulticlass) {
    const graph::Dims& dims = prediction.dims();
    if (dims.size() < 2 || dims[0] == 0 || dims[1] == 0)
      return invalid("[metrics] expected logits [N,C,...], got {}", to_string(prediction.type()));
    const int64_t rows = n / dims[1], inner = rows / dims[0];
    const bool soft = is_float(target.dtype());
    if (target.num_elements() != (soft ? n : rows))
      return invalid("[metrics] logits {} do not fit targets {}", to_string(prediction.type()),
                     to_string(target.type()));
    if (classes_ == 0) {
      classes_ = dims[1];
      confusion_.assign(static_cast<size_t>(classes_ * classes_), 0);
      ranks_.assign(static_cast<size_t>(classes_), 0);
    }
    if (classes_ != dims[1])
      return invalid("[metrics] expected {} classes as in earlier batches, got {}", classes_, dims[1]);
    std::vector<double> scores(static_cast<size_t>(classes_));
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t base = row / inner * classes_ * inner + row % inner;
      for (int64_t c = 0; c < classes_; ++c) scores[static_cast<size_t>(c)] = prediction.at(base + c * inner);
      int64_t truth = 0;
      if (soft) {
        for (int64_t c = 1; c < classes_; ++c)
          if (target.at(base + c * inner) > target.at(base + truth * inner)) truth = c;
      } else {
        truth = static_cast<int64_t>(target.at(row));
        if (truth == ignored_) continue;
        if (truth < 0 || truth >= classes_)
          return invalid(
              "[metrics] target {} of row {} is out of range, there are {} classes; ignore_index names targets that do "
              "not count",
              truth, row, classes_);
      }
      add_class(truth, scores);
    }
    return {};
  }
  if (target.num_elements() != n)
    return invalid("[metrics] expected as many predictions as targets, got {} and {}", to_string(prediction.type()),
                   to_string(target.type()));
  if (task_ == Task::kBinary) {
    classes_ = 2;
    confusion_.resize(4);
    ranks_.resize(2);
    for (int64_t i = 0; i < n; ++i) add_class(target.at(i) > 0.5 ? 1 : 0, {0, prediction.at(i)});
    return {};
  }
  const auto columns = static_cast<size_t>(target.dims().size() == 2 ? target.dims()[1] : 1);
  if (n == 0) return {};
  if (outputs_.empty()) outputs_.resize(columns);
  if (outputs_.size() != columns)
    return invalid("[metrics] expected {} outputs as in earlier batches, got {}", outputs_.size(), columns);
  for (int64_t i = 0; i < n;) {
    count_ += 1;
    for (Output& o : outputs_) {
      const double y = target.at(i), e = prediction.at(i) - y, delta = y - o.mean;
      o.absolute += std::abs(e);
      o.square += e * e;
      o.mean += delta / count_;
      o.spread += delta * (y - o.mean);
      ++i;
    }
  }
  return {};
}

double Metrics::auc() const {
  const size_t stride = static_cast<size_t>(classes_) + 1;
  double total = 0, used = 0;
  std::vector<std::pair<double, bool>> scored(classes_ == 0 ? 0 : scores_.size() / stride);
  for (int64_t c = classes_ == 2 ? 1 : 0; c < classes_; ++c) {
    for (size_t i = 0; i < scored.size(); ++i)
      scored[i] = {scores_[i * stride + 1 + static_cast<size_t>(c)], scores_[i * stride] == static_cast<double>(c)};
    const double area = rank_auc(scored);
    if (std::isnan(area)) continue;
    total += area;
    used += 1;
  }
  return used == 0 ? kNaN : total / used;
}

std::vector<double> Metrics::values() const {
  const auto n = static_cast<size_t>(classes_);
  const double total = static_cast<double>(std::accumulate(confusion_.begin(), confusion_.end(), int64_t{0}));
  double precision = 0, recall = 0, f1 = 0, correct = 0, used = 0;
  for (size_t c = 0; c < n; ++c) {
    double predicted = 0, actual = 0;
    for (size_t k = 0; k < n; ++k) {
      predicted += static_cast<double>(confusion_[k * n + c]);
      actual += static_cast<double>(confusion_[c * n + k]);
    }
    const double hit = static_cast<double>(confusion_[c * n + c]);
    correct += hit;
    if (n == 2 ? c == 0 : predicted + actual == 0) continue;
    used += 1;
    precision += ratio(hit, predicted);
    recall += ratio(hit, actual);
    f1 += ratio(2 * hit, predicted + actual);
  }
  const auto mean_of = [&](const auto& metric) {
    double sum = 0;
    for (const Output& o : outputs_) sum += metric(o);
    return sum / static_cast<double>(outputs_.size());
  };
  const bool empty = task_ == Task::kRegression ? count_ == 0 : total == 0;
  std::vector<double> out;
  for (const std::string& name : names_) {
    double value = kNaN;
    if (empty) {
    } else if (name == "accuracy") {
      value = correct / total;
    } else if (name == "precision") {
      value = precision / used;
    } else if (name == "recall") {
      value = recall / used;
    } else if (name == "f1") {
      value = f1 / used;
    } else if (name == "auc") {
      value = auc();
    } else if (name == "mae") {
      value = mean_of([&](const Output& o) { return o.absolute / count_; });
    } else if (name == "rmse") {
      value = mean_of([&](const Output& o) { return std::sqrt(o.square / count_); });
    } else if (name == "r2") {
      if (count_ >= 2)
        value = mean_of([](const Output& o) {
          return o.spread != 0 ? 1 - o.square / o.spread : o.square == 0 ? 1 : 0;
        });
    } else {
      const int64_t k = std::min(top_k(name), classes_);
      value = static_cast<double>(std::accumulate(ranks_.begin(), ranks_.begin() + k, int64_t{0})) / total;
    }
    out.push_back(value);
  }
  return out;
}

std::vector<double> Metrics::state() const {
  const Output first = outputs_.empty() ? Output() : outputs_[0];
  std::vector<double> out{
      static_cast<double>(classes_), count_, first.absolute, first.square, first.mean, first.spread};
  for (size_t i = 1; i < outputs_.size(); ++i)
    for (double v : {outputs_[i].absolute, outputs_[i].square, outputs_[i].mean, outputs_[i].spread}) out.push_back(v);
  out.insert(out.end(), confusion_.begin(), confusion_.end());
  out.insert(out.end(), ranks_.begin(), ranks_.end());
  out.insert(out.end(), scores_.begin(), scores_.end());
  return out;
}

Status Metrics::set_state(const std::vector<double>& state) {
  const auto bad = [&] {
    return make_error(ErrorCode::kDataCorrupt, "the metrics' state of {} numbers is damaged", state.size());
  };
  if (state.size() < 6 || !(state[0] >= 0 && state[0] < 1e6)) return bad();
  const auto n = static_cast<size_t>(state[0]);
  count_ = state[1];
  outputs_.clear();
  if (task_ == Task::kRegression) {
    if (n != 0 || (state.size() - 6) % 4 != 0) return bad();
    for (size_t i = 2; i + 4 <= state.size() && count_ > 0; i += 4)
      outputs_.push_back({state[i], state[i + 1], state[i + 2], state[i + 3]});
    return {};
  }
  if (state.size() < 6 + n * n + n || (!keep_scores_ && state.size() != 6 + n * n + n)) return bad();
  classes_ = static_cast<int64_t>(n);
  const auto at = [&](size_t i) { return state.begin() + static_cast<std::ptrdiff_t>(i); };
  confusion_.assign(at(6), at(6 + n * n));
  ranks_.assign(at(6 + n * n), at(6 + n * n + n));
  scores_.assign(at(6 + n * n + n), state.end());
  return {};
}

}  // namespace deepseek::train
