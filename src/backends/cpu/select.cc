// Searches and running sums along one axis: argmax, argmin, top_k, cumsum, all dtypes. A lane is one position outside
// the axis; lanes are independent, so threads never share one.
#include <algorithm>
#include <cmath>
#include <vector>

#include "backends/cpu/elements.h"
#include "backends/cpu/kernel.h"
#include "base/threads.h"
#include "ops/common.h"

namespace deepseek::backends::cpu {

namespace {

constexpr int64_t kGrain = 8192;  // elements per thread below which a second thread does not pay
constexpr int64_t kLanes = 64;    // neighbouring lanes that walk the axis together

struct Lanes {
  int64_t outer, n, inner;
  int64_t count() const { return outer * inner; }
};
Result<Lanes> lanes_of(const NodeInfo& node) {
  const graph::Dims& dims = node.context.in(0).dims;
  DS_ASSIGN(const int64_t axis, ops::normalize_axis(node.context.integer("axis"), static_cast<int64_t>(dims.size())));
  return Lanes{graph::product(std::span(dims).first(static_cast<size_t>(axis))), dims[axis],
               graph::product(std::span(dims).subspan(static_cast<size_t>(axis) + 1))};
}

// visit(offset of the first lane's start on a side with m elements on the axis is o * m * inner + j): runs of lanes.
template <class Visit>
void for_lanes(const Lanes& l, Visit visit) {
  parallel_for(l.count(), std::max<int64_t>(1, kGrain / std::max<int64_t>(l.n, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end;) {
      const int64_t o = at / l.inner, j = at % l.inner;
      const int64_t width = std::min({kLanes, l.inner - j, end - at});
      visit(o, j, width);
      at += width;
    }
  });
}

template <class T>
bool is_nan(T v) {
  if constexpr (std::is_integral_v<T>)
    return false;
  else
    return v != v;
}

// The first of the best; the first NaN is better than all.
template <class T>
void arg_extremum(const T* x, const Lanes& l, bool largest, int64_t* y) {
  for_lanes(l, [&](int64_t o, int64_t j, int64_t width) {
    T best[kLanes];
    const T* from = x + o * l.n * l.inner + j;
    int64_t* at = y + o * l.inner + j;
    std::copy_n(from, width, best);
    std::fill_n(at, width, int64_t{0});
    for (int64_t i = 1; i < l.n; ++i)
      for (int64_t k = 0; k < width; ++k) {
        const T v = from[i * l.inner + k];
        if (is_nan(best[k])) continue;
        if ((largest ? v > best[k] : v < best[k]) || is_nan(v)) {
          best[k] = v;
          at[k] = i;
        }
      }
  });
}

template <class T>
void top_k(const T* x, const Lanes& l, int64_t k, bool largest, T* values, int64_t* indices) {
  struct Item {
    T value;
    int64_t index;
  };
  // A total order: the lower index decides between equals, so a partial sort equals a stable one.
  const auto before = [largest](const Item& a, const Item& b) {
    const bool na = is_nan(a.value), nb = is_nan(b.value);
    if (na || nb) return na != nb ? na == largest : a.index < b.index;
    if (a.value == b.value) return a.index < b.index;
    return largest ? a.value > b.value : a.value < b.value;
  };
  for_lanes(l, [&](int64_t o, int64_t j, int64_t width) {
    std::vector<Item> items(static_cast<size_t>(l.n));
    for (int64_t lane = j; lane < j + width; ++lane) {
      for (int64_t i = 0; i < l.n; ++i) items[i] = {x[(o * l.n + i) * l.inner + lane], i};
      std::partial_sort(items.begin(), items.begin() + k, items.end(), before);
      for (int64_t i = 0; i < k; ++i) {
        const int64_t to = (o * k + i) * l.inner + lane;
        if (values != nullptr) values[to] = items[i].value;
        if (indices != nullptr) indices[to] = items[i].index;
      }
    }
  });
}

template <class T>
void cumsum(const T* x, const Lanes& l, Total<T>* y) {
  for_lanes(l, [&](int64_t o, int64_t j, int64_t width) {
    Sum<T> total[kLanes] = {};
    for (int64_t i = 0; i < l.n; ++i) {
      const int64_t at = (o * l.n + i) * l.inner + j;
      for (int64_t k = 0; k < width; ++k) {
        total[k] = added(total[k], static_cast<Sum<T>>(x[at + k]));
        y[at + k] = store_sum<T>(total[k]);
      }
    }
  });
}

}  // namespace

KernelOrError make_arg_extremum(const NodeInfo& node) {
  DS_ASSIGN(const Lanes lanes, lanes_of(node));
  const bool largest = node.context.op->name.value == "argmax";
  return make_kernel([lanes, largest, dtype = node.context.in(0).dtype](const KernelArgs& args) -> Status {
    visit_dtype(dtype, [&](auto element) {
      arg_extremum(static_cast<const decltype(element)*>(args.in[0]), lanes, largest,
                   static_cast<int64_t*>(args.out[0]));
    });
    return {};
  });
}

KernelOrError make_top_k(const NodeInfo& node) {
  DS_ASSIGN(const Lanes lanes, lanes_of(node));
  const int64_t k = node.context.integer("k");
  const bool largest = node.context.flag("largest");
  return make_kernel([lanes, k, largest, dtype = node.context.in(0).dtype](const KernelArgs& args) -> Status {
    visit_dtype(dtype, [&](auto element) {
      using T = decltype(element);
      top_k(static_cast<const T*>(args.in[0]), lanes, k, largest, static_cast<T*>(args.out[0]),
            static_cast<int64_t*>(args.out[1]));
    });
    return {};
  });
}

KernelOrError make_cumsum(const NodeInfo& node) {
  DS_ASSIGN(const Lanes lanes, lanes_of(node));
  return make_kernel([lanes, dtype = node.context.in(0).dtype](const KernelArgs& args) -> Status {
    visit_dtype(dtype, [&](auto element) {
      using T = decltype(element);
      cumsum(static_cast<const T*>(args.in[0]), lanes, static_cast<Total<T>*>(args.out[0]));
    });
    return {};
  });
}

}  // namespace deepseek::backends::cpu
