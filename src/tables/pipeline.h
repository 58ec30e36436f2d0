// Steps in order as one fitted thing: learnt from training data, saved, and run again bit for bit where a model is
// served. Test: tests/python/test_tables.py
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tables/step.h"

namespace deepseek::tables {

class Pipeline {
 public:
  Pipeline() = default;
  Pipeline(Pipeline&&) = default;
  Pipeline& operator=(Pipeline&&) = default;
  // A column of training data, and its type as Arrow prints it.
  struct Input {
    std::string name, type;
  };

  // "steps:" with a list of one step each, a name or a name with its options, and the column to be predicted, or a list
  // of such, which no step changes unless its options name it, and which may be missing where a model is served:
  //     target: price
  //     steps:
  //       - impute: {strategy: median}
  //       - duplicates
  // The error lists all mistakes, each with the line in `where`.
  static Result<Pipeline> parse(std::string_view yaml, const std::string& where);
  // What save() wrote.
  static Result<Pipeline> load(const std::string& path);
  Status save(const std::string& path) const;
  // The same as JSON within another file, which `where` names.
  static Result<Pipeline> from_json(const nlohmann::json& json, const std::string& where);
  Result<nlohmann::json> to_json() const;

  size_t size() const { return steps_.size(); }
  bool fitted() const { return fitted_; }
  const std::vector<std::string>& targets() const { return targets_; }
  void set_targets(std::vector<std::string> targets) { targets_ = std::move(targets); }  // before fit()
  // What transform() needs: the columns of training data but the targets.
  std::vector<Input> inputs() const;
  // Each step learns from what those before it made of the training data.
  Result<Table> fit_transform(const Table& table);
  // The same of batches, without all of them in memory: each step goes through the stream once or twice. Steps that
  // need all rows at once say so.
  Status fit(OpenStream open);
  // Training data as the fitted steps make it, batch by batch; only of what fit() saw.
  Status transform_training(OpenStream open, const std::function<Status(const Table&)>& f) const;
  // Columns that training data did not have are left out; those that are missing or of a type that does not convert
  // without loss are an error that names them.
  Result<Table> transform(const Table& table) const;
  // The same transform as a query on the table `from`, a name or a query in brackets, for DuckDB or Spark: a cluster's
  // own engine does the work then. Doubles are equal to the bit where the engine computes as IEEE 754 has it.
  Result<std::string> to_sql(const std::string& dialect, const std::string& from) const;
  // What the steps found in training data: "impute: price: 3 of 10 missing, median 2.5".
  std::vector<std::string> notes() const;

 private:
  Status learn_inputs(const arrow::Schema& schema);
  Result<Table> conform(const Table& table) const;

  bool is_target(const std::string& name) const;

  std::vector<std::unique_ptr<Step>> steps_;
  std::vector<Input> inputs_;  // columns of training data, targets too
  std::vector<std::string> targets_;
  bool fitted_ = false;
};

}  // namespace deepseek::tables
