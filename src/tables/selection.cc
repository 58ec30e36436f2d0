#include "tables/selection.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "base/threads.h"
#include "tables/columns.h"
#include "tables/numbers.h"

namespace deepseek::tables {

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

}  // namespace

Bins bin_numbers(std::span<const double> values, int most) {
  std::vector<double> sorted;
  for (const double v : values)
    if (!std::isnan(v)) sorted.push_back(v);
  std::sort(sorted.begin(), sorted.end());
  // Upper ends of bins, each a value that occurs, the last one left out.
  std::vector<double> ends = sorted;
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  if (static_cast<int>(ends.size()) > most) {
    ends.clear();
    for (int b = 1; b < most; ++b)
      ends.push_back(sorted[sorted.size() * static_cast<size_t>(b) / static_cast<size_t>(most) -
                            (sorted.size() >= static_cast<size_t>(most) ? 1 : 0)]);
    ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
    if (!ends.empty() && ends.back() == sorted.back()) ends.pop_back();
  } else if (!ends.empty()) {
    ends.pop_back();
  }
  Bins bins;
  bins.of.resize(values.size());
  const bool missing = sorted.size() < values.size();
  bins.count = static_cast<int>(ends.size()) + (sorted.empty() ? 0 : 1) + (missing ? 1 : 0);
  for (size_t i = 0; i < values.size(); ++i)
    bins.of[i] = static_cast<uint16_t>(
        std::isnan(values[i]) ? bins.count - 1 : std::lower_bound(ends.begin(), ends.end(), values[i]) - ends.begin());
  return bins;
}

Bins bin_categories(std::span<const double> codes, int most) {
  std::map<double, int64_t> counts;
  bool missing = false;
  for (const double c : codes) std::isnan(c) ? void(missing = true) : void(++counts[c]);
  std::vector<std::pair<int64_t, double>> order;
  for (const auto& [code, n] : counts) order.emplace_back(-n, code);
  std::sort(order.begin(), order.end());
  const bool others = static_cast<int>(order.size()) > most;
  const int own = others ? most - 1 : static_cast<int>(order.size());
  std::map<double, uint16_t> bin;
  for (int b = 0; b < static_cast<int>(order.size()); ++b)
    bin[order[static_cast<size_t>(b)].second] = static_cast<uint16_t>(std::min(b, own));
  Bins bins;
  bins.count = std::max(1, own + (others ? 1 : 0) + (missing ? 1 : 0));
  for (const double c : codes) bins.of.push_back(std::isnan(c) ? static_cast<uint16_t>(bins.count - 1) : bin[c]);
  return bins;
}

bool holds_categories(const arrow::DataType& type) {
  return holds_text(type) || type.id() == arrow::Type::BOOL ||
         (type.id() == arrow::Type::DICTIONARY &&
          holds_text(*static_cast<const arrow::DictionaryType&>(type).value_type()));
}

bool holds_values(const arrow::DataType& type) { return holds_numbers(type) || holds_categories(type); }

Result<std::vector<double>> values_of(const std::string& name, const Column& given, const std::string& wanted_by) {
  Column column = given;
  const arrow::DataType& type = *column->type();
  std::vector<double> values;
  if (holds_numbers(type) || type.id() == arrow::Type::BOOL) {
    if (type.id() == arrow::Type::BOOL) {
      DS_ASSIGN(column, cast_column(column, arrow::uint8()));
    }
    Numbers numbers;
    for (const Part& part : parts_of(*column)) {
      const double* x = numbers.load(part);
      values.insert(values.end(), x, x + part.length);
    }
    return values;
  }
  if (!holds_categories(type))
    return invalid("{}: column '{}' is {}, expected numbers, text or booleans", wanted_by, name, type.ToString());
  DS_ASSIGN(const Column text, as_text(column));
  std::map<std::string_view, double> code;
  for (const auto& chunk : text->chunks()) {
    const auto& words = static_cast<const arrow::StringArray&>(*chunk);
    for (int64_t i = 0; i < words.length(); ++i)
      if (words.IsValid(i)) code.emplace(words.GetView(i), 0);
  }
  double next = 0;
  for (auto& [word, number] : code) number = next++;
  for (const auto& chunk : text->chunks()) {
    const auto& words = static_cast<const arrow::StringArray&>(*chunk);
    for (int64_t i = 0; i < words.length(); ++i) values.push_back(words.IsValid(i) ? code[words.GetView(i)] : kNan);
  }
  return values;
}

Result<Bins> bin_column(const std::string& name, const Column& column, int most, const std::string& wanted_by) {
  DS_ASSIGN(const std::vector<double> values, values_of(name, column, wanted_by));
  return holds_categories(*column->type()) ? bin_categories(values, most) : bin_numbers(values, most);
}

double mutual_information(const Bins& x, const Bins& y, bool corrected) {
  const auto nx = static_cast<size_t>(x.count), ny = static_cast<size_t>(y.count);
  std::vector<int64_t> joint(nx * ny), of_x(nx), of_y(ny);
  for (size_t i = 0; i < x.of.size(); ++i) ++joint[x.of[i] * ny + y.of[i]];
  for (size_t a = 0; a < nx; ++a)
    for (size_t b = 0; b < ny; ++b) {
      of_x[a] += joint[a * ny + b];
      of_y[b] += joint[a * ny + b];
    }
  const auto n = static_cast<double>(x.of.size());
  double sum = 0;
  for (size_t a = 0; a < nx; ++a)
    for (size_t b = 0; b < ny; ++b)
      if (const auto k = static_cast<double>(joint[a * ny + b]); k > 0)
        sum += k / n * std::log(k * n / (static_cast<double>(of_x[a]) * static_cast<double>(of_y[b])));
  if (!corrected) return sum;
  const auto used = [](const std::vector<int64_t>& counts) {
    return static_cast<double>(std::count_if(counts.begin(), counts.end(), [](int64_t c) { return c > 0; }));
  };
  return sum - (used(of_x) - 1) * (used(of_y) - 1) / (2 * n);
}

double told_share(std::span<const double> values, bool numbers, const Bins& y) {
  const double unknown = mutual_information(y, y, false);
  if (unknown == 0) return 0;
  if (!numbers) return std::clamp(mutual_information(bin_categories(values, 4096), y, true) / unknown, 0.0, 1.0);
  const int most = std::clamp(static_cast<int>(values.size() / 20), 2, 64);
  double told = mutual_information(bin_numbers(values, most), y, false);
  std::vector<size_t> order;
  for (size_t i = 0; i < values.size(); ++i)
    if (!std::isnan(values[i])) order.push_back(i);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  const auto entropy = [](const std::vector<double>& counts, double n) {
    double h = 0;
    for (const double c : counts)
      if (c > 0) h -= c / n * std::log(c / n);
    return h;
  };
  std::vector<double> left(static_cast<size_t>(y.count)), right(static_cast<size_t>(y.count));
  for (const size_t i : order) ++right[y.of[i]];
  const auto n = static_cast<double>(order.size());
  const double whole = order.empty() ? 0 : entropy(right, n);
  for (size_t k = 0; k + 1 < order.size(); ++k) {
    ++left[y.of[order[k]]];
    --right[y.of[order[k]]];
    if (values[order[k]] == values[order[k + 1]]) continue;
    const auto below = static_cast<double>(k + 1);
    told = std::max(told, whole - below / n * entropy(left, below) - (n - below) / n * entropy(right, n - below));
  }
  return std::clamp(told / unknown, 0.0, 1.0);
}

Result<Response> response_of(const std::string& name, const Column& column, const std::string& wanted_by) {
  DS_ASSIGN(const std::vector<double> values, values_of(name, column, wanted_by));
  Response response;
  if (std::any_of(values.begin(), values.end(), [](double v) { return std::isnan(v); }))
    return invalid("{}: the target '{}' has missing values; leave those rows out", wanted_by, name);
  if (!holds_categories(*column->type())) {
    response.values.emplace_back(values.begin(), values.end());
    return response;
  }
  std::map<double, int64_t> counts;
  for (const double v : values) ++counts[v];
  if (counts.size() < 2) return invalid("{}: the target '{}' has one value only", wanted_by, name);
  // Two classes are one question; of many, the ten most frequent are asked for.
  std::vector<std::pair<int64_t, double>> classes;
  for (const auto& [value, n] : counts) classes.emplace_back(-n, value);
  std::sort(classes.begin(), classes.end());
  classes.resize(counts.size() == 2 ? 1 : std::min<size_t>(counts.size(), 10));
  for (const auto& [n, value] : classes) {
    std::vector<float>& is = response.values.emplace_back();
    for (const double v : values) is.push_back(v == value ? 1.f : 0.f);
  }
  return response;
}

std::vector<double> boosted_gains(const std::vector<Bins>& columns, const Response& response, int rounds) {
  constexpr int kDepth = 3;
  constexpr double kRate = 0.2, kPenalty = 1;
  constexpr double kLeast = 20;  // rows of a leaf
  std::vector<double> gains(columns.size());
  if (columns.empty()) return gains;
  const size_t rows = columns[0].of.size();
  struct Split {
    double gain = 0;
    int bin = -1;  // bins up to this one go left
  };
  struct Sum {
    double g = 0, n = 0;
  };
  for (const std::vector<float>& y : response.values) {
    const double mean = std::accumulate(y.begin(), y.end(), 0.0) / static_cast<double>(rows);
    std::vector<float> residual(rows);
    for (size_t i = 0; i < rows; ++i) residual[i] = y[i] - static_cast<float>(mean);
    std::vector<uint8_t> leaf(rows);
    for (int round = 0; round < rounds; ++round) {
      std::fill(leaf.begin(), leaf.end(), uint8_t{0});
      for (int depth = 0; depth < kDepth; ++depth) {
        const size_t leaves = size_t{1} << depth;
        std::vector<std::vector<Split>> best(columns.size(), std::vector<Split>(leaves));
        parallel_for(static_cast<int64_t>(columns.size()), 1, [&](int64_t begin, int64_t end) {
          std::vector<Sum> sums;
          for (auto c = static_cast<size_t>(begin); c < static_cast<size_t>(end); ++c) {
            const auto bins = static_cast<size_t>(columns[c].count);
            sums.assign(leaves * bins, {});
            for (size_t i = 0; i < rows; ++i) {
              Sum& s = sums[leaf[i] * bins + columns[c].of[i]];
              s.g += residual[i];
              ++s.n;
            }
            for (size_t l = 0; l < leaves; ++l) {
              Sum all, left;
              for (size_t b = 0; b < bins; ++b) all.g += sums[l * bins + b].g, all.n += sums[l * bins + b].n;
              const auto score = [&](const Sum& s) { return s.g * s.g / (s.n + kPenalty); };
              for (size_t b = 0; b + 1 < bins; ++b) {
                left.g += sums[l * bins + b].g, left.n += sums[l * bins + b].n;
                const Sum right{all.g - left.g, all.n - left.n};
                if (left.n < kLeast || right.n < kLeast) continue;
                const double gain = score(left) + score(right) - score(all);
                if (gain > best[c][l].gain) best[c][l] = {gain, static_cast<int>(b)};
              }
            }
          }
        });
        std::vector<size_t> column(leaves);
        std::vector<int> bin(leaves, -1);
        for (size_t l = 0; l < leaves; ++l) {
          for (size_t c = 1; c < columns.size(); ++c)
            if (best[c][l].gain > best[column[l]][l].gain) column[l] = c;
          bin[l] = best[column[l]][l].bin;
          gains[column[l]] += best[column[l]][l].gain;
        }
        for (size_t i = 0; i < rows; ++i) {
          const size_t l = leaf[i];
          leaf[i] = static_cast<uint8_t>(2 * l + (bin[l] >= 0 && columns[column[l]].of[i] > bin[l] ? 1 : 0));
        }
      }
      std::array<Sum, size_t{1} << kDepth> sums;
      for (size_t i = 0; i < rows; ++i) sums[leaf[i]].g += residual[i], ++sums[leaf[i]].n;
      for (size_t i = 0; i < rows; ++i)
        residual[i] -= static_cast<float>(kRate * sums[leaf[i]].g / (sums[leaf[i]].n + kPenalty));
    }
  }
  return gains;
}

std::vector<size_t> select(const std::vector<std::vector<double>>& columns, const std::vector<double>& worth,
                           const std::vector<std::vector<double>>& known, size_t keep, double redundancy) {
  // Centered and of length one, so that a correlation is a product.
  const auto standard = [](const std::vector<double>& values) {
    double sum = 0, n = 0;
    for (const double v : values)
      if (std::isfinite(v)) sum += v, ++n;
    const double mean = n > 0 ? sum / n : 0;
    std::vector<double> unit;
    double square = 0;
    for (const double v : values) {
      unit.push_back(std::isfinite(v) ? v - mean : 0);
      square += unit.back() * unit.back();
    }
    for (double& u : unit) u /= square > 0 ? std::sqrt(square) : 1;
    return unit;
  };
  std::vector<std::vector<double>> taken;
  for (const auto& k : known) taken.push_back(standard(k));
  std::vector<size_t> order(columns.size()), chosen;
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return worth[a] > worth[b]; });
  for (const size_t c : order) {
    if (chosen.size() >= keep || !(worth[c] > 0)) break;
    std::vector<double> unit = standard(columns[c]);
    const bool redundant = std::any_of(taken.begin(), taken.end(), [&](const auto& other) {
      return std::fabs(std::inner_product(unit.begin(), unit.end(), other.begin(), 0.0)) > redundancy;
    });
    if (redundant) continue;
    taken.push_back(std::move(unit));
    chosen.push_back(c);
  }
  return chosen;
}

}  // namespace deepseek::tables
