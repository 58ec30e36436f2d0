// f32 softmax, log_softmax and their gradients. Rows are contiguous when the axis is the last; otherwise the inner axes
// go side by side, so that loads stay contiguous.
#include <algorithm>
#include <cmath>

#include "backends/cpu/kernel.h"
#include "backends/cpu/rows.h"
#include "backends/cpu/tile_ops.h"
#include "base/simd.h"
#include "base/threads.h"
#include "ops/common.h"

namespace deepseek::backends::cpu {

namespace {

// x[n][inner] seen as n strided rows; `width` columns at a time.
struct Slab {
  int64_t n, inner;
};
constexpr int64_t kWidth = 64;
// Rows shorter than this, a vector, are turned, so that kWidth of them go side by side.
constexpr int64_t kShort = 16;

DS_SIMD void column_max(const float* x, Slab s, int64_t width, float* out) {
  std::copy_n(x, width, out);
  for (int64_t i = 1; i < s.n; ++i)
    for (int64_t j = 0; j < width; ++j) out[j] = std::max(out[j], x[i * s.inner + j]);
}
DS_SIMD void subtract(const float* x, Slab s, int64_t width, const float* shift, float* y) {
  for (int64_t i = 0; i < s.n; ++i)
    for (int64_t j = 0; j < width; ++j) y[i * s.inner + j] = x[i * s.inner + j] - shift[j];
}
DS_SIMD void scale(Slab s, int64_t width, const float* factor, float* y) {
  for (int64_t i = 0; i < s.n; ++i)
    for (int64_t j = 0; j < width; ++j) y[i * s.inner + j] *= factor[j];
}
DS_SIMD void gradient(const float* y, const float* dy, Slab s, int64_t width, float* dx) {  // of softmax
  float dot[kWidth] = {};
  for (int64_t i = 0; i < s.n; ++i)
    for (int64_t j = 0; j < width; ++j) dot[j] += y[i * s.inner + j] * dy[i * s.inner + j];
  for (int64_t i = 0; i < s.n; ++i)
    for (int64_t j = 0; j < width; ++j) dx[i * s.inner + j] = y[i * s.inner + j] * (dy[i * s.inner + j] - dot[j]);
}

void apply(TileFn fn, const float* x, Slab s, int64_t width, float* y) {
  if (width == s.inner) {  // one run of memory
    const void* in[] = {x};
    return fn(in, y, s.n * s.inner);
  }
  for (int64_t i = 0; i < s.n; ++i) {
    const void* in[] = {x + i * s.inner};
    fn(in, y + i * s.inner, width);
  }
}

// The vector function on as many numbers as there are columns in a slab.
void map(TileFn fn, const float* x, int64_t n, float* y) {
  const void* in[] = {x};
  fn(in, y, n);
}
const TileFn& exp_fn() {
  static const TileFn fn = tile_fn(TileOp::kExp, DType::kF32, DType::kF32);
  return fn;
}

void softmax_slab(const float* x, Slab s, int64_t width, bool log, float* y) {
  static const TileFn log_fn = tile_fn(TileOp::kLog, DType::kF32, DType::kF32);
  float shift[kWidth], total[kWidth] = {}, terms[kWidth];
  column_max(x, s, width, shift);
  subtract(x, s, width, shift, y);
  if (!log) apply(exp_fn(), y, s, width, y);
  for (int64_t i = 0; i < s.n; ++i) {
    if (log) map(exp_fn(), y + i * s.inner, width, terms);
    const float* const from = log ? terms : y + i * s.inner;
    for (int64_t j = 0; j < width; ++j) total[j] += from[j];
  }
  if (log) {
    map(log_fn, total, width, total);
    subtract(y, s, width, total, y);
  } else {
    for (int64_t j = 0; j < width; ++j) total[j] = 1 / total[j];
    scale(s, width, total, y);
  }
}

void log_gradient(const float* y, const float* dy, Slab s, int64_t width, float* dx) {
  float total[kWidth] = {}, terms[kWidth];
  for (int64_t i = 0; i < s.n; ++i)
    for (int64_t j = 0; j < width; ++j) total[j] += dy[i * s.inner + j];
  for (int64_t i = 0; i < s.n; ++i) {
    map(exp_fn(), y + i * s.inner, width, terms);
    for (int64_t j = 0; j < width; ++j) dx[i * s.inner + j] = dy[i * s.inner + j] - terms[j] * total[j];
  }
}

void slab(const float* a, const float* b, Slab s, int64_t width, bool log, float* y) {
  if (b == nullptr)
    softmax_slab(a, s, width, log, y);
  else if (log)
    log_gradient(a, b, s, width, y);
  else
    gradient(a, b, s, width, y);
}

// Rows [0, rows) of n < kShort elements, at most kWidth of them, as the columns of a slab.
void short_rows(const float* a, const float* b, int64_t n, int64_t rows, bool log, float* y) {
  float turned[3][kShort * kWidth];
  const auto turn = [&](const float* from, float* to) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < n; ++i) to[i * kWidth + r] = from[r * n + i];
  };
  turn(a, turned[0]);
  if (b != nullptr) turn(b, turned[1]);
  slab(turned[0], b != nullptr ? turned[1] : nullptr, {n, kWidth}, rows, log, turned[2]);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < n; ++i) y[r * n + i] = turned[2][i * kWidth + r];
}

}  // namespace

Status takes_softmax(const NodeInfo& node) {
  const graph::TensorType& type = node.context.in(0);
  if (type.dtype != DType::kF32) return refuse(fmt::format("dtype {} is not supported", to_string(type.dtype)));
  return type.num_elements() > 0 ? Status() : refuse("the input is empty");
}

KernelOrError make_softmax(const NodeInfo& node) {
  const graph::TensorType& type = node.context.in(0);
  DS_ASSIGN(const int64_t axis, ops::normalize_axis(node.context.integer("axis"), type.rank()));
  const Slab s{type.dims[axis], graph::product(std::span(type.dims).subspan(axis + 1))};
  const int64_t outer = type.num_elements() / (s.n * s.inner), parts = (s.inner + kWidth - 1) / kWidth;
  const std::string& op = node.context.op->name.value;
  // A row is read whole, or element by element, before it is written: results may lie over operands.
  const bool log = op.starts_with("log_"), backward = op.ends_with("_grad");
  if (s.inner == 1)
    return make_kernel(
        [=](const KernelArgs& args) -> Status {
          const float* a = static_cast<const float*>(args.in[0]);
          const float* b = backward ? static_cast<const float*>(args.in[1]) : nullptr;
          float* y = static_cast<float*>(args.out[0]);
          if (s.n < kShort) {
            parallel_for((outer + kWidth - 1) / kWidth, std::max<int64_t>(1, 4096 / (s.n * kWidth)),
                         [&](int64_t begin, int64_t end) {
                           for (int64_t at = begin * kWidth; at < std::min(outer, end * kWidth); at += kWidth)
                             short_rows(a + at * s.n, backward ? b + at * s.n : nullptr, s.n,
                                        std::min(kWidth, outer - at), log, y + at * s.n);
                         });
            return {};
          }
          const RowFunctions& rows = row_functions();
          parallel_for(outer, std::max<int64_t>(1, 4096 / s.n), [&](int64_t begin, int64_t end) {
            for (int64_t at = begin * s.n; at < end * s.n; at += s.n) {
              if (backward)
                (log ? rows.log_softmax_grad : rows.softmax_grad)(a + at, b + at, s.n, y + at);
              else
                (log ? rows.log_softmax : rows.softmax)(a + at, s.n, y + at);
            }
          });
          return {};
        },
        true);
  return make_kernel(
      [=](const KernelArgs& args) -> Status {
        const float* a = static_cast<const float*>(args.in[0]);
        const float* b = backward ? static_cast<const float*>(args.in[1]) : nullptr;
        float* y = static_cast<float*>(args.out[0]);
        parallel_for(outer * parts, std::max<int64_t>(1, 4096 / s.n), [&](int64_t begin, int64_t end) {
          for (int64_t k = begin; k < end; ++k) {
            const int64_t column = k % parts * kWidth, at = k / parts * s.n * s.inner + column;
            const int64_t width = std::min(kWidth, s.inner - column);
            slab(a + at, backward ? b + at : nullptr, s, width, log, y + at);
          }
        });
        return {};
      },
      true);
}

}  // namespace deepseek::backends::cpu
