// What a sampler sees and gives. A sampler is a pure function of the setting, the trials so far and the new trial's
// number: what it keeps only saves time. So a seed gives the same trials wherever and in however many processes they
// are asked for. Test: tests/tune/sampler_test.cc
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "tune/samplers/sobol.h"
#include "tune/space.h"
#include "tune/trial.h"

namespace deepseek::tune {

struct Setting {
  Space space;
  std::vector<Direction> directions = {Direction::kMinimize};  // one per objective
  uint64_t seed = 0;
  // Known constraints: points where this is false are not suggested. None: everything is allowed.
  std::function<bool(const Point&)> allowed;

  size_t objectives() const { return directions.size(); }
};

class Sampler {
 public:
  virtual ~Sampler() = default;
  // The point of trial `number`; `trials` are all others, by number. A space that is finite and has been gone through
  // gives ErrorCode::kNotFound.
  virtual Result<Point> suggest(const Setting& setting, const std::vector<Trial>& trials, int64_t number) = 0;
};

// random, qmc, grid, tpe, gp, cmaes, hybrid.
std::vector<std::string> sampler_names();
Result<std::shared_ptr<Sampler>> make_sampler(const std::string& name);

std::shared_ptr<Sampler> make_random_sampler();  // uniform in unit coordinates
// Sobol's sequence, scrambled by the seed (Owen, 1995).
std::shared_ptr<Sampler> make_qmc_sampler();
// All points of a finite space in a shuffled order; else grids that become finer: 2, 3, 5, 9... values per axis.
std::shared_ptr<Sampler> make_grid_sampler();
// Tree-structured Parzen estimator, all parameters jointly (Bergstra et al., 2011; Falkner et al., 2018).
std::shared_ptr<Sampler> make_tpe_sampler();
// Gaussian process with log expected improvement alone.
std::shared_ptr<Sampler> make_gp_sampler();
// CMA-ES (Hansen, 2016) on numeric parameters; choices follow the better half's frequencies.
std::shared_ptr<Sampler> make_cmaes_sampler();
// Grid and QMC arms, Gaussian process, trust regions by dimension and TPE by budget: the default. See hybrid.cc.
std::shared_ptr<Sampler> make_hybrid_sampler();

// What model-based samplers make of the trials: losses, smaller is better whatever the direction.
struct Observations {
  std::vector<const Trial*> finished;       // complete, and pruned with a report; by number
  std::vector<std::vector<double>> losses;  // of those, one per objective
  std::vector<double> violations;           // of those: sum of positive black-box constraints
  std::vector<const Trial*> failed;         // failed or not a number
  std::vector<const Trial*> pending;        // running
};
Observations observe(const Setting& setting, const std::vector<Trial>& trials);

// The points there are, to not suggest one twice.
class Seen {
 public:
  Seen(const Setting& setting, const std::vector<Trial>& trials);
  bool contains(const Point& point) const;
  size_t size() const;
  // Every point of the space is there.
  bool exhausted() const { return static_cast<double>(size()) >= cardinality_; }

 private:
  struct Set;
  std::shared_ptr<Set> set_;
  double cardinality_;
};

// The space's point at Sobol's point `number`, where it is new and allowed, else at random ones, which are no other
// number's. `first`, if any, takes the place of point 0.
Result<Point> sobol_point(const Setting& setting, const Seen& seen, const Sobol& sobol, int64_t number,
                          const std::vector<double>& first = {});

// A point of `draw(k)`, k = 0, 1, ..., that is allowed and not seen; after some tries, of a finite space, the first of
// its points that is. Errors: kNotFound where none is left; kInvalidArgument where the constraints allow nothing that
// was found.
Result<Point> first_new(const Setting& setting, const Seen& seen, const std::function<Point(int64_t)>& draw);

}  // namespace deepseek::tune
