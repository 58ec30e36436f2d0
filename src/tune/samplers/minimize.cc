#include "tune/samplers/minimize.h"

#include <cmath>
#include <deque>

namespace deepseek::tune {

using Eigen::VectorXd;

Minimum minimize(const std::function<double(const VectorXd&, VectorXd&)>& function, VectorXd x, const VectorXd& low,
                 const VectorXd& high, int max_evaluations, double tolerance) {
  constexpr size_t kMemory = 8;
  constexpr double kArmijo = 1e-4;
  struct Pair {
    VectorXd s, y;
    double rho;
  };
  std::deque<Pair> memory;
  const auto inside = [&](const VectorXd& v) -> VectorXd { return v.cwiseMax(low).cwiseMin(high); };
  x = inside(x);
  VectorXd gradient(x.size());
  double value = function(x, gradient);
  int evaluations = 1;
  while (evaluations < max_evaluations && std::isfinite(value)) {
    // Coordinates at a bound that the gradient pushes against stay.
    const auto held = [&](Eigen::Index i) {
      return (x[i] <= low[i] && gradient[i] > 0) || (x[i] >= high[i] && gradient[i] < 0);
    };
    VectorXd free = gradient;
    for (Eigen::Index i = 0; i < x.size(); ++i)
      if (held(i)) free[i] = 0;
    if (free.lpNorm<Eigen::Infinity>() < tolerance) break;
    VectorXd direction = -free;
    std::vector<double> a(memory.size());
    for (size_t k = memory.size(); k-- > 0;) {
      a[k] = memory[k].rho * memory[k].s.dot(direction);
      direction -= a[k] * memory[k].y;
    }
    if (!memory.empty()) direction *= 1 / (memory.back().rho * memory.back().y.squaredNorm());
    for (size_t k = 0; k < memory.size(); ++k)
      direction += (a[k] - memory[k].rho * memory[k].y.dot(direction)) * memory[k].s;
    for (Eigen::Index i = 0; i < x.size(); ++i)
      if (held(i)) direction[i] = 0;
    if (!(direction.dot(free) < 0)) direction = -free, memory.clear();
    double step = memory.empty() ? std::min(1.0, 0.3 / direction.norm()) : 1.0;
    VectorXd next, next_gradient(x.size());
    double next_value = 0;
    bool found = false;
    for (int halvings = 0; halvings < 20 && evaluations < max_evaluations; ++halvings, ++evaluations) {
      next = inside(x + step * direction);
      next_value = function(next, next_gradient);
      if (std::isfinite(next_value) && next_value <= value + kArmijo * gradient.dot(next - x)) {
        found = true;
        ++evaluations;
        break;
      }
      // The minimum of the parabola through value, slope and the new value, within limits.
      const double slope = gradient.dot(next - x);
      const double share = std::isfinite(next_value) ? -0.5 * slope / (next_value - value - slope) : 0.1;
      step *= std::isfinite(share) ? std::clamp(share, 0.1, 0.5) : 0.1;
    }
    if (!found) break;
    Pair pair{next - x, next_gradient - gradient, 0};
    const double curvature = pair.s.dot(pair.y);
    const double before = value;
    x = std::move(next), gradient = next_gradient, value = next_value;
    if (curvature > 1e-12 * pair.y.squaredNorm()) {
      pair.rho = 1 / curvature;
      memory.push_back(std::move(pair));
      if (memory.size() > kMemory) memory.pop_front();
    }
    if (before - value < tolerance * 1e-2 * (1 + std::abs(value))) break;
  }
  return {std::move(x), value, evaluations};
}

}  // namespace deepseek::tune
