#include "features/primitives.h"

#include <algorithm>
#include <cmath>

#include "base/strings.h"

namespace deepseek::features {

void Group::reset(int64_t n) {
  size = n;
  has_present_ = has_sorted_ = has_sum_ = has_powers_ = has_distinct_ = false;
}

std::span<const double> Group::present() {
  if (has_present_) return view_;
  has_present_ = true;
  const double* const values = x[0];
  const bool all = std::none_of(values, values + size, [](double v) { return std::isnan(v); });
  if (all) {
    view_ = {values, static_cast<size_t>(size)};
    return view_;
  }
  present_.clear();
  for (int64_t i = 0; i < size; ++i)
    if (!std::isnan(values[i])) present_.push_back(values[i]);
  view_ = present_;
  return view_;
}

const std::vector<double>& Group::sorted() {
  if (has_sorted_) return sorted_;
  has_sorted_ = true;
  const std::span<const double> values = present();
  sorted_.assign(values.begin(), values.end());
  std::sort(sorted_.begin(), sorted_.end());
  return sorted_;
}

const std::vector<std::pair<double, double>>& Group::distinct() {
  if (has_distinct_) return distinct_;
  has_distinct_ = true;
  distinct_.clear();
  // Codes of categories are counted in a table, which is left as it was found.
  constexpr double kSmall = 4096;
  const std::span<const double> values = present();
  const bool small = std::all_of(values.begin(), values.end(), [](double v) {
    return v >= 0 && v < kSmall && v == static_cast<double>(static_cast<int32_t>(v));
  });
  if (!small) {
    const std::vector<double>& v = sorted();
    for (size_t i = 0; i < v.size();) {
      size_t j = i + 1;
      while (j < v.size() && v[j] == v[i]) ++j;
      distinct_.emplace_back(v[i], static_cast<double>(j - i));
      i = j;
    }
    return distinct_;
  }
  places_.resize(static_cast<size_t>(kSmall));
  for (const double v : values) {
    int32_t& place = places_[static_cast<size_t>(v)];
    if (place == 0) {
      distinct_.emplace_back(v, 0);
      place = static_cast<int32_t>(distinct_.size());
    }
    ++distinct_[static_cast<size_t>(place - 1)].second;
  }
  for (const auto& [value, n] : distinct_) places_[static_cast<size_t>(value)] = 0;
  return distinct_;
}

double Group::sum() {
  if (has_sum_) return sum_;
  has_sum_ = true;
  double total = 0, lost = 0;
  for (const double v : present()) {
    const double next = total + v;
    lost += std::fabs(total) >= std::fabs(v) ? (total - next) + v : (v - next) + total;
    total = next;
  }
  sum_ = std::isfinite(total) ? total + lost : total;
  return sum_;
}

double Group::power_sum(int k) {
  if (!has_powers_) {
    has_powers_ = true;
    const double center = mean();
    double s2 = 0, s3 = 0, s4 = 0;
    for (const double v : present()) {
      const double d = v - center, square = d * d;
      s2 += square;
      s3 += square * d;
      s4 += square * square;
    }
    powers_[0] = s2, powers_[1] = s3, powers_[2] = s4;
  }
  return powers_[k - 2];
}

const std::vector<std::string>& time_units() {
  static const std::vector<std::string> units = {"seconds", "minutes", "hours", "days", "months", "years"};
  return units;
}
double seconds_of(double unit) {
  // A month as a twelfth of 365 days, a year as 365 days and an hour, which is what Featuretools takes.
  constexpr double kSeconds[] = {1, 60, 3600, 86400, 2628000, 31540000};
  return kSeconds[static_cast<size_t>(unit)];
}

const std::vector<Primitive>& primitives() {
  static const std::vector<Primitive> list = [] {
    std::vector<Primitive> all;
    add_aggregations(all);
    add_arithmetic(all);
    add_series(all);
    add_dates(all);
    add_texts(all);
    return all;
  }();
  return list;
}

Result<const Primitive*> find_primitive(const std::string& name, bool aggregation) {
  std::vector<std::string> names;
  for (const Primitive& p : primitives()) {
    if (p.aggregation != aggregation) continue;
    if (p.name == name) return &p;
    names.push_back(p.name);
  }
  return invalid("unknown {} '{}'{} There are {}", aggregation ? "aggregation" : "transform", name,
                 did_you_mean(name, names), join(names, ", "));
}

}  // namespace deepseek::features
