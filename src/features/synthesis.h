// Feature synthesis as users have it: described once, learnt from training tables, saved, and computed again where a
// model is served. Test: tests/python/test_features.py
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "features/compute.h"

namespace deepseek::features {

struct SynthesisConfig {
  struct TableConfig {
    std::string name;
    EntityOptions options;
    std::string file;  // for the command line
  };
  std::vector<TableConfig> tables;
  std::vector<std::string> relationships;  // "sessions.customer_id -> customers"
  SynthesisOptions options;
  // Values that rows are chosen by, as in SynthesisOptions, or so many of the most frequent ones.
  std::map<std::string, int64_t> where_most = {};
  std::string training_window;  // "30 days"; of integer time indices a number; empty: all
  bool include_cutoff = true;
  std::string max_memory;  // "4 GiB"; empty: as much as there is
  double max_seconds = 0;  // 0: any time

  // The error lists all mistakes, each with its line.
  static Result<SynthesisConfig> parse(std::string_view yaml, const std::string& where);
};

using NamedTables = std::map<std::string, tables::Table>;

// Which rows features are made for, and what is known then.
struct Instances {
  tables::Column rows;     // values of the index; null: all rows
  tables::Column cutoffs;  // one, or one for each; null: everything is known
};

// What it will take.
struct Estimate {
  int64_t features = 0, rows = 0;
  size_t result_bytes = 0, working_bytes = 0;
  double seconds = 0;  // from rows tried
  std::string text() const;
};

class Synthesis {
 public:
  explicit Synthesis(SynthesisConfig config) : config_(std::move(config)) {}
  // What save() wrote.
  static Result<Synthesis> load(const std::string& path);
  Status save(const std::string& path) const;

  const SynthesisConfig& config() const { return config_; }
  bool fitted() const { return fitted_; }
  // Learns which features there are. Tables that the config does not name are an error, as are those that it misses.
  Status fit(const NamedTables& tables);
  // Names of the features, in order.
  std::vector<std::string> features() const;
  // Tries some rows.
  Result<Estimate> estimate(const NamedTables& tables, const Instances& instances = {}) const;
  // The index, then a column for each feature. Refused where the estimate is beyond the budget.
  Result<tables::Table> transform(const NamedTables& tables, const Instances& instances = {},
                                  const std::function<Status(double)>& progress = {}) const;

 private:
  Result<Entities> entities_of(const NamedTables& tables) const;
  Result<ComputeOptions> options_for(const Entities& entities, const Instances& instances) const;
  Result<Estimate> estimate(const Entities& entities, const Definitions& definitions,
                            const ComputeOptions& options) const;

  SynthesisConfig config_;
  bool fitted_ = false;
  std::vector<std::string> names_;
  std::string definitions_;  // JSON, bound to tables when there are some
};

}  // namespace deepseek::features
