// Reductions over any axes: vectorised for f32, plain loops for f64, integers and rare orders of axes.
// Sums are pairwise over rows of 256 so that the error does not grow with the length.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/cpu/elements.h"
#include "backends/cpu/kernel.h"
#include "base/simd.h"
#include "base/threads.h"
#include "ops/common.h"

namespace deepseek::backends::cpu {

using graph::Dims;
using graph::TensorType;

namespace {

struct AxisLoop {
  int64_t size;
  bool reduced;
};

// Merged axes: neighbours of one kind become one loop.
std::vector<AxisLoop> merged_loops(const Dims& dims, const Dims& axes) {
  std::vector<AxisLoop> loops;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] == 1) continue;
    const bool reduced = std::binary_search(axes.begin(), axes.end(), static_cast<int64_t>(i));
    if (!loops.empty() && loops.back().reduced == reduced)
      loops.back().size *= dims[i];
    else
      loops.push_back({dims[i], reduced});
  }
  return loops;
}

enum class Kind { kSum, kMax, kMin, kProd };

inline float combine(Kind kind, float a, float b) {
  if (kind == Kind::kSum) return a + b;
  if (kind == Kind::kProd) return a * b;
  if (std::isnan(a) || std::isnan(b)) return NAN;
  return kind == Kind::kMax ? std::max(a, b) : std::min(a, b);
}
float initial(Kind kind) {
  return kind == Kind::kSum ? 0.0f : kind == Kind::kProd ? 1.0f : kind == Kind::kMax ? -INFINITY : INFINITY;
}

// lanes[j] = combine(lanes[j], x[i * 16 + j]): a loop per kind, and no memory that could be x's, so that it becomes
// vectors.
constexpr int kLanes = 16;
#define DS_LANES(name, expression)                             \
  DS_SIMD void name(const float* x, int64_t n, float* lanes) { \
    float a[kLanes];                                           \
    std::copy_n(lanes, kLanes, a);                             \
    for (int64_t i = 0; i < n; i += kLanes)                    \
      for (int j = 0; j < kLanes; ++j) {                       \
        const float b = x[i + j];                              \
        a[j] = expression;                                     \
      }                                                        \
    std::copy_n(a, kLanes, lanes);                             \
  }
DS_LANES(add_lanes, a[j] + b)
DS_LANES(multiply_lanes, a[j] * b)
DS_LANES(largest_lanes, b <= a[j] || a[j] != a[j] ? a[j] : b)
DS_LANES(smallest_lanes, b >= a[j] || a[j] != a[j] ? a[j] : b)
#undef DS_LANES

float row(Kind kind, const float* x, int64_t n) {
  if (n > 256) return combine(kind, row(kind, x, n / 2), row(kind, x + n / 2, n - n / 2));
  if (n < 2 * kLanes) {
    float acc = initial(kind);
    for (int64_t i = 0; i < n; ++i) acc = combine(kind, acc, x[i]);
    return acc;
  }
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, initial(kind));
  int64_t i = n / kLanes * kLanes;
  (kind == Kind::kSum    ? add_lanes
   : kind == Kind::kProd ? multiply_lanes
   : kind == Kind::kMax  ? largest_lanes
                         : smallest_lanes)(x, i, lanes);
  for (; i < n; ++i) lanes[i % kLanes] = combine(kind, lanes[i % kLanes], x[i]);
  float acc = lanes[0];
  for (int j = 1; j < kLanes; ++j) acc = combine(kind, acc, lanes[j]);
  return acc;
}

// acc[j] = combine over i of x[i * stride + j], pairwise over i.
DS_SIMD void columns(Kind kind, const float* x, int64_t rows, int64_t stride, int64_t n, float* acc) {
  if (rows > 64) {
    std::vector<float> other(static_cast<size_t>(n));
    columns(kind, x, rows / 2, stride, n, acc);
    columns(kind, x + rows / 2 * stride, rows - rows / 2, stride, n, other.data());
    for (int64_t j = 0; j < n; ++j) acc[j] = combine(kind, acc[j], other[j]);
    return;
  }
  std::fill_n(acc, n, initial(kind));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < n; ++j) acc[j] = combine(kind, acc[j], x[i * stride + j]);
}

// x as [outer][middle][inner] with up to four alternating loops; see make_reduce for the cases.
struct Plan {
  int64_t a = 1, b = 1, c = 1, d = 1;  // kept, reduced, kept, reduced
};

void reduce_plan(Kind kind, const Plan& p, const float* x, float* y, float scale) {
  // y[a][c] = over b and d of x[a][b][c][d]
  if (p.d == 1) {
    if (p.a == 1 && p.c * p.b > 65536 && p.c >= 32) {
      parallel_for(p.c, std::max<int64_t>(16, 32768 / p.b), [&](int64_t begin, int64_t end) {
        columns(kind, x + begin, p.b, p.c, end - begin, y + begin);
        for (int64_t j = begin; j < end; ++j) y[j] *= scale;
      });
      return;
    }
    parallel_for(p.a, std::max<int64_t>(1, 32768 / (p.b * p.c)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        columns(kind, x + i * p.b * p.c, p.b, p.c, p.c, y + i * p.c);
        for (int64_t j = 0; j < p.c; ++j) y[i * p.c + j] *= scale;
      }
    });
    return;
  }
  if (constexpr int64_t kParts = 64; p.a * p.b * p.c == 1 && p.d >= kParts * 1024) {
    float partial[kParts];
    parallel_for(kParts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const int64_t first = p.d * k / kParts, last = p.d * (k + 1) / kParts;
        partial[k] = row(kind, x + first, last - first);
      }
    });
    *y = row(kind, partial, kParts) * scale;
    return;
  }
  parallel_for(p.a * p.c, std::max<int64_t>(1, 32768 / (p.b * p.d)), [&](int64_t begin, int64_t end) {
    std::vector<float> partial(static_cast<size_t>(p.b));
    for (int64_t k = begin; k < end; ++k) {
      const int64_t i = k / p.c, j = k % p.c;
      for (int64_t b = 0; b < p.b; ++b) partial[b] = row(kind, x + ((i * p.b + b) * p.c + j) * p.d, p.d);
      y[k] = row(kind, partial.data(), p.b) * scale;
    }
  });
}

// f64 in double, integers in 64 bits; one accumulator, in the order of memory.
template <class S>
void add_to(Kind kind, S& acc, S v) {
  if (kind == Kind::kSum)
    acc = added(acc, v);
  else if (kind == Kind::kProd)
    acc = multiplied(acc, v);
  else if (v != v || (kind == Kind::kMax ? v > acc : v < acc))
    acc = v;
}

// Any alternation of kept and reduced loops. `last` is the innermost loop; the others are walked as one counter each
// for the kept and the reduced ones.
struct LoopNest {
  Dims kept, kept_strides, reduced, reduced_strides;
  AxisLoop last;
  explicit LoopNest(const std::vector<AxisLoop>& loops) : last(loops.back()) {
    int64_t stride = last.size;
    for (size_t i = loops.size() - 1; i-- > 0; stride *= loops[i].size) {
      (loops[i].reduced ? reduced : kept).push_back(loops[i].size);
      (loops[i].reduced ? reduced_strides : kept_strides).push_back(stride);
    }
  }
  // Dims and strides count from the inner end.
  static int64_t offset(int64_t index, const Dims& dims, const Dims& strides) {
    int64_t at = 0;
    for (size_t i = 0; i < dims.size(); index /= dims[i++]) at += index % dims[i] * strides[i];
    return at;
  }
};

// Y: T itself, or what totals of T come in.
template <class T, class Y>
void reduce_nest(Kind kind, const LoopNest& nest, const T* x, Y* y, double count) {
  const int64_t rows = graph::product(nest.reduced), n = nest.last.size;
  parallel_for(graph::product(nest.kept), std::max<int64_t>(1, 16384 / (rows * n)), [&](int64_t begin, int64_t end) {
    std::vector<Sum<T>> acc(static_cast<size_t>(nest.last.reduced ? 1 : n));
    for (int64_t k = begin; k < end; ++k) {
      const T* from = x + LoopNest::offset(k, nest.kept, nest.kept_strides);
      for (size_t j = 0; j < acc.size(); ++j)
        acc[j] = kind == Kind::kSum ? 0 : kind == Kind::kProd ? 1 : static_cast<Sum<T>>(from[j]);
      for (int64_t r = 0; r < rows; ++r) {
        const T* row = from + LoopNest::offset(r, nest.reduced, nest.reduced_strides);
        for (int64_t j = 0; j < n; ++j) add_to(kind, acc[nest.last.reduced ? 0 : j], static_cast<Sum<T>>(row[j]));
      }
      for (size_t j = 0; j < acc.size(); ++j) {
        if constexpr (!std::is_integral_v<T>) acc[j] /= count;
        Y& to = y[k * static_cast<int64_t>(acc.size()) + static_cast<int64_t>(j)];
        if constexpr (std::is_same_v<Y, Total<T>>)
          to = store_sum<T>(acc[j]);
        else
          to = static_cast<Y>(acc[j]);
      }
    }
  });
}

}  // namespace

Status takes_reduce(const NodeInfo& node) {
  const TensorType& x = node.context.in(0);
  if (x.dtype != DType::kF32 && x.dtype != DType::kF64 && is_float(x.dtype))
    return refuse(fmt::format("dtype {} is not supported", to_string(x.dtype)));
  return x.num_elements() > 0 ? Status() : refuse("the input is empty");
}

KernelOrError make_reduce(const NodeInfo& node) {
  const TensorType& x = node.context.in(0);
  const std::string& op = node.context.op->name.value;
  const Kind kind = op == "max" ? Kind::kMax : op == "min" ? Kind::kMin : op == "prod" ? Kind::kProd : Kind::kSum;
  DS_ASSIGN(const Dims axes, ops::normalize_axes(node.context.ints("axes"), x.rank()));
  const std::vector<AxisLoop> loops = merged_loops(x.dims, axes);
  Plan plan;
  size_t next = 0;
  for (int64_t* slot : {&plan.a, &plan.b, &plan.c, &plan.d}) {
    const bool reduced = slot == &plan.b || slot == &plan.d;
    if (next < loops.size() && loops[next].reduced == reduced) *slot = loops[next++].size;
  }
  if (plan.c == 1 && plan.d == 1) std::swap(plan.b, plan.d);  // along rows
  if (x.dtype != DType::kF32 || next != loops.size()) {
    const double count =
        op == "mean" ? static_cast<double>(x.num_elements()) / static_cast<double>(node.outputs[0].num_elements()) : 1;
    const LoopNest nest(loops.empty() ? std::vector<AxisLoop>{{1, false}} : loops);
    return make_kernel([=, dtype = x.dtype](const KernelArgs& args) -> Status {
      visit_dtype(dtype, [&](auto element) {
        using T = decltype(element);
        const T* const from = static_cast<const T*>(args.in[0]);
        if (kind == Kind::kSum || kind == Kind::kProd)
          reduce_nest(kind, nest, from, static_cast<Total<T>*>(args.out[0]), count);
        else
          reduce_nest(kind, nest, from, static_cast<T*>(args.out[0]), count);
      });
      return {};
    });
  }
  const float scale =
      op == "mean" ? static_cast<float>(node.outputs[0].num_elements()) / static_cast<float>(x.num_elements()) : 1.0f;
  return make_kernel([=](const KernelArgs& args) -> Status {
    reduce_plan(kind, plan, static_cast<const float*>(args.in[0]), static_cast<float*>(args.out[0]), scale);
    return {};
  });
}

}  // namespace deepseek::backends::cpu
