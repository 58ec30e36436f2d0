// Deep feature synthesis: which features there are of a table and of those related to it (Kanter and Veeramachaneni,
// Deep Feature Synthesis, DSAA 2015). Nothing is computed here. Test: tests/features/define_test.cc
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "features/entities.h"
#include "features/primitives.h"

namespace deepseek::features {

// A primitive with its arguments, one per parameter.
struct Use {
  const Primitive* primitive = nullptr;
  std::vector<double> arguments;
};

// One way along a relationship: from the child to the parent or back.
struct Hop {
  int relationship = 0;
  bool forward = false;
  bool operator==(const Hop&) const = default;
  bool operator<(const Hop& o) const {
    return relationship != o.relationship ? relationship < o.relationship : forward < o.forward;
  }
};

struct Feature {
  enum class Kind { kIdentity, kDirect, kAggregation, kTransform, kGroupTransform, kEquals };
  Kind kind = Kind::kIdentity;
  int entity = 0;
  std::string name;
  Schema schema;
  int depth = 0;
  double missing = 0;       // where there is nothing to compute it of
  int field = -1;           // of identities
  Use use;                  // of aggregations and transforms
  std::vector<int> inputs;  // features
  std::vector<Hop> path;    // of directs and aggregations, from this table
  int where = -1, group = -1;
  std::string value;  // of kEquals: what the input is compared to
};

struct SynthesisOptions {
  std::string target;  // the table that features are made for
  // Names, with arguments in brackets: "time_since_last(unit=hours)".
  std::vector<std::string> aggregations = {"sum",  "std",   "max",          "skew",       "min",
                                           "mean", "count", "percent_true", "num_unique", "mode"};
  std::vector<std::string> transforms = {"age", "day", "year", "month", "weekday", "num_words", "num_characters"};
  std::vector<std::string> group_transforms = {};
  std::vector<std::string> where_aggregations = {"count"};
  // Values that rows are chosen by: a list by "table.column".
  std::map<std::string, std::vector<std::string>> where = {};
  int64_t depth = 2;
  int64_t max_features = 0;  // the first ones, shallow ones before deep ones; 0: all
  std::vector<std::string> ignore_tables = {};
  std::map<std::string, std::vector<std::string>> ignore_columns = {};  // by table
  bool all_types = false;                                               // also features that are dates and text
};

class Definitions {
 public:
  static Result<Definitions> make(const Entities& entities, const SynthesisOptions& options);

  const std::vector<Feature>& features() const { return features_; }  // inputs before what is made of them
  const std::vector<int>& targets() const { return targets_; }        // those asked for
  int entity() const { return entity_; }
  // "MEAN(transactions.amount)" to tables, columns and primitives by name, and back.
  nlohmann::json to_json(const Entities& entities) const;
  static Result<Definitions> from_json(const nlohmann::json& json, const Entities& entities);

 private:
  static Result<Definitions> read_json(const nlohmann::json& json, const Entities& entities);
  friend class Synthesizer;
  std::vector<Feature> features_;
  std::vector<int> targets_;
  int entity_ = 0;
};

// "trend(unit=days)" to a primitive and its arguments, and back without those that are the default.
Result<Use> parse_use(const std::string& text, bool aggregation);
std::string use_text(const Use& use);

}  // namespace deepseek::features
