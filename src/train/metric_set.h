// The metrics of a training: of each target that an output is compared with. Test: tests/train/metric_set_test.cc
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "graph/graph.h"
#include "train/metrics.h"

namespace deepseek::train {

// An output of the model with a target of the batch.
struct Comparison {
  std::string output, target;
  Task task = Task::kRegression;
  std::optional<int64_t> ignored = {};
  // Whether outputs and targets of these types can be compared so.
  bool fits(const graph::TensorType& output_type, const graph::TensorType& target_type) const;
};

class MetricSet {
 public:
  // `asked`: empty for each task's defaults, {"none"} for no metrics, else names of metrics, "<metric>" for each
  // comparison whose task it fits, "<target>/<metric>" for one. Errors: kInvalidArgument for unknown names, metrics
  // that fit nothing, targets that nothing is compared with; all are listed.
  static Result<MetricSet> create(const std::vector<std::string>& asked, const std::vector<Comparison>& comparisons);

  // "accuracy" where one target is compared, else "kind/accuracy".
  const std::vector<std::string>& names() const { return names_; }
  // By name, with those that are compared; others are passed over.
  Status add(const std::map<std::string, graph::Tensor>& outputs, const data::Batch& batch);
  std::vector<double> values() const;  // one per name, see Metrics

  // Of each target of classes: counts[true * classes + predicted].
  struct Confusion {
    std::string target;
    int64_t classes = 0;
    std::vector<int64_t> counts;
  };
  std::vector<Confusion> confusions() const;

  // Everything that was added, exactly.
  std::vector<double> state() const;
  Status set_state(const std::vector<double>& state);

 private:
  struct Part {
    Comparison comparison;
    Metrics metrics;
  };
  std::vector<Part> parts_;
  std::vector<std::string> names_;
};

}  // namespace deepseek::train
