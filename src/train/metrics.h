// Metrics over predictions that arrive in batches. Definitions are scikit-learn's. What training needs to resume
// mid-epoch is in state(). Test: tests/train/metrics_test.cc, tests/python/test_metrics.py
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "graph/tensor.h"

namespace deepseek::train {

enum class Task {
  kMulticlass,  // prediction [N,C,...] logits; target [N,...] classes, or probabilities [N,C,...] whose largest counts
  kBinary,      // prediction of any shape, logits; target of the same count, positive where > 0.5
  kRegression,  // prediction and target of equal count; [N,M] are M outputs, others one
};

// Known names, each with the tasks it fits:
//   accuracy, top<k> (top5: the true class is among the k largest), precision, recall, f1: for two classes those of
//   class 1, for more the plain mean over the classes that occur among targets or predictions (0 where undefined);
//   auc: area under the ROC curve, for more classes the mean of one against the rest over softmax; mae, rmse, r2: plain
//   means over outputs.
class Metrics {
 public:
  // Errors: kInvalidArgument for unknown names and those that do not fit the task; all are listed.
  // Rows whose target class is `ignored` are left out.
  static Result<Metrics> create(std::vector<std::string> names, Task task, std::optional<int64_t> ignored = {});
  // What a task's users look at first: accuracy; mae, rmse and r2.
  static std::vector<std::string> defaults(Task task);
  static bool higher_is_better(const std::string& name);

  const std::vector<std::string>& names() const { return names_; }
  // Errors name expected and actual shapes, and a class out of range.
  Status add(const graph::Tensor& prediction, const graph::Tensor& target);
  // One value per name; NaN where nothing was added or the metric is undefined (auc without both classes or with a
  // prediction that is NaN, r2 of one sample).
  std::vector<double> values() const;
  // counts[true * classes + predicted]; empty for regression and before the first batch.
  const std::vector<int64_t>& confusion() const { return confusion_; }
  int64_t classes() const { return classes_; }

  // Everything that was added, exactly; scores for auc are left out when `names` has none.
  std::vector<double> state() const;
  Status set_state(const std::vector<double>& state);

 private:
  void add_class(int64_t truth, const std::vector<double>& scores);
  double auc() const;

  std::vector<std::string> names_;
  Task task_ = Task::kMulticlass;
  std::optional<int64_t> ignored_;
  bool keep_scores_ = false;
  int64_t classes_ = 0;
  std::vector<int64_t> confusion_, ranks_;  // ranks_[r]: the true class has r classes above it
  std::vector<double> scores_;              // kept rows of [truth, log odds...]
  // Regression: sums over rows of one output, with Welford's mean and sum of squared deviations of the targets.
  struct Output {
    double absolute = 0, square = 0, mean = 0, spread = 0;
  };
  std::vector<Output> outputs_;
  double count_ = 0;  // rows
};

}  // namespace deepseek::train
