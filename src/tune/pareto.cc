#include "tune/pareto.h"

#include <algorithm>
#include <cmath>

namespace deepseek::tune {
namespace {

using Points = std::vector<std::vector<double>>;

bool dominates(const std::vector<double>& a, const std::vector<double>& b) {
  bool less = false;
  for (size_t k = 0; k < a.size(); ++k) {
    if (!(a[k] <= b[k])) return false;
    less = less || a[k] < b[k];
  }
  return less;
}

double volume_to(const std::vector<double>& point, const std::vector<double>& reference) {
  double v = 1;
  for (size_t k = 0; k < point.size(); ++k) v *= reference[k] - point[k];
  return v;
}

// Of points that are no worse than each other, in falling order of the last objective.
double volume(Points points, const std::vector<double>& reference) {
  std::sort(points.begin(), points.end(), [](const auto& a, const auto& b) { return a.back() > b.back(); });
  double total = 0;
  for (size_t i = 0; i < points.size(); ++i) {
    // What point i adds to those after it: its own box less what the others cover of it.
    Points rest;
    for (size_t j = i + 1; j < points.size(); ++j) {
      rest.push_back(points[j]);
      for (size_t k = 0; k < reference.size(); ++k) rest.back()[k] = std::max(points[i][k], points[j][k]);
    }
    Points front;
    for (const size_t k : pareto_front(rest)) front.push_back(rest[k]);
    std::sort(front.begin(), front.end());
    front.erase(std::unique(front.begin(), front.end()), front.end());
    total += volume_to(points[i], reference) - (front.empty() ? 0 : volume(std::move(front), reference));
  }
  return total;
}

}  // namespace

std::vector<size_t> pareto_front(const Points& losses) {
  std::vector<size_t> front;
  for (size_t i = 0; i < losses.size(); ++i)
    if (std::none_of(losses.begin(), losses.end(), [&](const auto& other) { return dominates(other, losses[i]); }))
      front.push_back(i);
  return front;
}

double hypervolume(const Points& losses, const std::vector<double>& reference) {
  Points inside;
  for (const size_t i : pareto_front(losses)) {
    const auto& p = losses[i];
    bool below = true;
    for (size_t k = 0; k < p.size(); ++k) below = below && p[k] < reference[k];
    if (below && std::find(inside.begin(), inside.end(), p) == inside.end()) inside.push_back(p);
  }
  return inside.empty() ? 0 : volume(std::move(inside), reference);
}

}  // namespace deepseek::tune
