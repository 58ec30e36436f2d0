// How much each parameter matters: functional analysis of variance (fANOVA) of a random forest over the space (Hutter,
// Hoos and Leyton-Brown, ICML 2014). Trees are boxes, so that means over all other parameters are sums, not samples.
// Optuna's FanovaImportanceEvaluator is the same for floats without log; it takes logarithmic ranges by value, and
// gives the first and the last int half a cell. Test: tests/tune/importance_test.cc
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "tune/samplers/sampler.h"

namespace deepseek::tune {

struct ImportanceOptions {
  size_t objective = 0;
  int trees = 64;
  size_t rows = 2000;  // drawn for each tree, at most (bootstrap: with replacement)
  std::optional<double>
      worst;  // values worse than this count as this one: a few diverged trials aren't all that matters
  uint64_t seed = 0;
};

struct Importance {
  size_t parameter;
  double share;       // of the variance over the whole space, that the parameter explains alone; all sum to at most 1
  double deviation;   // of the share, between trees
  double normalised;  // share over the sum of all shares (Optuna's convention)
};

// What two parameters explain together beyond what each does alone.
struct Interaction {
  size_t first, second;
  double share;
};

// The objective over one parameter, the mean over all others, as the user gave values; deviations are between trees.
struct Marginal {
  std::vector<double> values, mean, deviation;
};

class Forest {
 public:
  // Of complete trials with finite values. Numeric parameters are even in unit coordinates, choices are categories. An
  // inactive parameter says nothing: it stands at a random place in every tree. Errors: kInvalidArgument (fewer than
  // four such trials, one value alone, an objective or number of trees out of range).
  static Result<Forest> fit(const Setting& setting, const std::vector<Trial>& trials,
                            const ImportanceOptions& options = {});
  // By falling share.
  std::vector<Importance> importances() const;
  // Of all pairs of these parameters, by falling share.
  std::vector<Interaction> interactions(const std::vector<size_t>& among) const;
  // At each choice, or each of few values, else at `points` values that are even in unit coordinates.
  Marginal marginal(size_t parameter, size_t points = 64) const;

 private:
  struct Trees;
  explicit Forest(std::shared_ptr<const Trees> trees) : trees_(std::move(trees)) {}
  std::shared_ptr<const Trees> trees_;
};

// Forest::fit() and its importances.
Result<std::vector<Importance>> importances(const Setting& setting, const std::vector<Trial>& trials,
                                            const ImportanceOptions& options = {});

}  // namespace deepseek::tune
