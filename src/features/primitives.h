// The functions that features are built of: what each takes, gives and computes. Names and definitions are
// Featuretools' (https://featuretools.alteryx.com, 1.31), so that features carry over. Test:
// tests/python/test_features.py
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "features/vector.h"

namespace deepseek::features {

// What an input must be: of this logical type, if one is named, and with these tags at least.
struct Wants {
  std::optional<Logical> logical = {};
  uint32_t tags = 0;
  bool takes(const Schema& schema) const {
    return (!logical || *logical == schema.logical) && (tags & ~schema.tags) == 0;
  }
};

struct Parameter {
  std::string name;
  double value = 0;                       // the default
  std::vector<std::string> choices = {};  // then the value is the number of one
  bool named = false;                     // in names of features, even where it is the default
};

// The values of one parent's rows, in order of time, and what several functions want of them.
class Group {
 public:
  const double* x[2] = {};
  int64_t size = 0;
  double now = 0;  // the cut-off time in microseconds

  void reset(int64_t n);                // forgets what was computed
  std::span<const double> present();    // x[0] without missing values
  const std::vector<double>& sorted();  // the same, sorted
  // Distinct values with how often they occur, in order of value where they are not small whole numbers.
  const std::vector<std::pair<double, double>>& distinct();
  double sum();  // compensated (Neumaier, 1974)
  double mean() { return sum() / static_cast<double>(present().size()); }
  double power_sum(int k);  // of (x - mean)^k, k = 2, 3, 4
 private:
  std::vector<double> present_, sorted_;
  std::vector<std::pair<double, double>> distinct_;
  std::vector<int32_t> places_;  // of small whole numbers in distinct_, plus 1
  std::span<const double> view_;
  bool has_present_ = false, has_sorted_ = false, has_sum_ = false, has_powers_ = false, has_distinct_ = false;
  double sum_ = 0, powers_[3] = {};
};

// Rows of one table. Inputs are columns in the order of rows, of which one call sees `size`.
struct Rows {
  const double* x[3] = {};
  int64_t size = 0;
  const double* arguments = nullptr;
  const double* now = nullptr;  // the cut-off time of each row, in microseconds; null: none is needed
};

using Reduce = double (*)(Group& group, const double* arguments);
using Map = void (*)(const Rows& rows, double* out);
using Measure = double (*)(std::string_view text);

struct Primitive {
  std::string name, doc;
  bool aggregation = false;
  std::vector<std::vector<Wants>> inputs;  // one of these lists
  std::optional<Schema> output = {};       // none: that of the first input
  std::vector<Parameter> parameters = {};
  double missing = 0;                   // where there are no rows, or the result is NaN
  Reduce reduce = nullptr;              // of aggregations
  Map map = nullptr;                    // of transforms
  Measure measure = nullptr;            // of transforms of text
  std::vector<std::string> words = {};  // what the numbers of a result's categories mean, sorted
  std::string infix = {};               // "a + b" instead of "ADD_NUMERIC(a, b)"
  bool stacks_on_itself = true;
  bool commutative = false;
  bool ordered = false;         // needs all rows of the table, in order
  bool causal = true;           // of ordered ones: a row's value does not depend on later rows
  bool needs_now = false;       // the cut-off time
  bool counts_rows = false;     // looks at no value
  bool compares_words = false;  // of two inputs: categories are compared by what they mean
};
const std::vector<Primitive>& primitives();
// Errors list what there is, with the nearest name.
Result<const Primitive*> find_primitive(const std::string& name, bool aggregation);

// One entry per file.
void add_aggregations(std::vector<Primitive>& list);
void add_arithmetic(std::vector<Primitive>& list);
void add_series(std::vector<Primitive>& list);
void add_dates(std::vector<Primitive>& list);
void add_texts(std::vector<Primitive>& list);

// What the files share.
constexpr Schema kNumber{Logical::kNone, kNumeric}, kDoubleNumber{Logical::kDouble, kNumeric},
    kWhole{Logical::kInteger, kNumeric}, kCount{Logical::kIntegerNullable, kNumeric}, kTruth{Logical::kBoolean, 0},
    kMaybe{Logical::kBooleanNullable, 0}, kRank{Logical::kOrdinal, kCategory},
    kCategories{Logical::kCategorical, kCategory};
const std::vector<std::string>& time_units();  // choices of a parameter `unit`
double seconds_of(double unit);                // by number of the choice

// Runs of maps: each element of its own.
template <auto F>
void each(const Rows& r, double* out) {
  for (int64_t i = 0; i < r.size; ++i) {
    if constexpr (requires { F(0.0); })
      out[i] = F(r.x[0][i]);
    else
      out[i] = F(r.x[0][i], r.x[1][i]);
  }
}
template <auto F>
void each_with(const Rows& r, double* out) {  // F(x, argument)
  for (int64_t i = 0; i < r.size; ++i) out[i] = F(r.x[0][i], r.arguments[0]);
}

}  // namespace deepseek::features
