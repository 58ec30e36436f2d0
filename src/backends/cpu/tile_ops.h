// Element-wise operations on one cache-sized tile: out[i] = f(in0[i], in1[i], ...). Compiled once per instruction set,
// chosen at run time. The element-wise kernel strings them together. Test: tests/ops/samples_test.cc
#pragma once

#include <cstdint>

#include "backends/cpu/tile_table.h"
#include "base/dtype.h"

namespace deepseek::backends::cpu {

constexpr int64_t kTile = 512;  // elements; a handful of f32 tiles stay in the first-level cache

// Operands are contiguous; out may equal an input of the same element size.
using TileFn = void (*)(const void* const* in, void* out, int64_t n);

// Null where the combination does not exist. Half floats have casts from and to f32 only, and kRoundTo from f32, whose
// result stays f32 with the values that a half float of type `out` can take. `in` is the dtype of the (last) operand,
// `out` of the result.
TileFn tile_fn(TileOp op, DType in, DType out);

// out[i] = sum over terms of x[term][i] * coefficient[term][i % width] + shift[i % width], or 0 where that is less and
// `relu`. At most kMostTerms; width is a multiple of 16 up to kMostWidth.
constexpr int kMostTerms = 3;
constexpr int64_t kMostWidth = 64;
void affine_tile(int terms, const float* const* x, const float* const* coefficients, const float* shift, bool relu,
                 int64_t width, float* out, int64_t n);

// The sum of a tile. Each of many lanes adds up few numbers, so the error stays near that of one rounding.
double sum_tile(const float* x, int64_t n);
// acc[i % period] += x[i], for n a multiple of the period.
void add_rows(const float* x, int64_t n, int64_t period, double* acc);
// acc[i % period] += (x[i] - shift[i % period])^2.
void add_squared_rows(const float* x, int64_t n, int64_t period, const float* shift, double* acc);
// sum[i % period] += a[i] and dot[i % period] += a[i] * (x[i] - shift[i % period]).
void add_dot_rows(const float* a, const float* x, const float* shift, int64_t n, int64_t period, double* sum,
                  double* dot);

}  // namespace deepseek::backends::cpu
