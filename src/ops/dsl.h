// Short names for building graphs in C++: operators and functions on Expr. Used by gradients, decompositions, nn layers
// and losses. Anything not here is builder.op("name", {inputs}, {attrs}).
#pragma once

#include "graph/builder.h"

namespace deepseek::ops {

using graph::Attrs;
using graph::Builder;
using graph::Dims;
using graph::Expr;
using graph::TensorType;

// Element-wise with NumPy broadcasting; both sides have one dtype. Numbers take the other side's dtype.
Expr add(Expr a, Expr b);
Expr sub(Expr a, Expr b);
Expr mul(Expr a, Expr b);
Expr div(Expr a, Expr b);
Expr pow(Expr a, Expr b);
Expr maximum(Expr a, Expr b);
Expr minimum(Expr a, Expr b);
Expr equal(Expr a, Expr b);
Expr less(Expr a, Expr b);
Expr greater(Expr a, Expr b);
Expr greater_equal(Expr a, Expr b);
Expr select(Expr condition, Expr a, Expr b);
Expr cast(Expr a, DType dtype);  // a itself where it has that dtype
// What sums and counts of many elements are kept in: f32 for half floats, whose range ends at 65,504 or whose integers
// end at 256.
constexpr DType wide_dtype(DType dtype) { return dtype == DType::kF16 || dtype == DType::kBF16 ? DType::kF32 : dtype; }
// A constant of a's dtype.
Expr constant_like(Expr a, double value);
Expr zeros_like(Expr a);

Expr neg(Expr a);
Expr exp(Expr a);
Expr log(Expr a);
Expr sqrt(Expr a);
Expr rsqrt(Expr a);
Expr abs(Expr a);
Expr sign(Expr a);
Expr tanh(Expr a);
Expr sigmoid(Expr a);
Expr relu(Expr a);
Expr square(Expr a);
Expr reciprocal(Expr a);

// Reductions; empty axes mean all, negative axes count from the end.
Expr sum(Expr a, Dims axes = {}, bool keepdims = false);
Expr mean(Expr a, Dims axes = {}, bool keepdims = false);
Expr max(Expr a, Dims axes = {}, bool keepdims = false);
// The adjoint of broadcasting: sums `a` down to `dims`.
Expr sum_to(Expr a, const Dims& dims);

Expr reshape(Expr a, Dims dims);  // one dim may be -1
Expr transpose(Expr a, Dims permutation);
Expr broadcast_to(Expr a, const Dims& dims);
Expr concat(std::vector<Expr> parts, int64_t axis);
// Elements [start, stop) of one axis, by `step`.
Expr slice(Expr a, int64_t axis, int64_t start, int64_t stop, int64_t step = 1);
Expr matmul(Expr a, Expr b, bool transpose_a = false, bool transpose_b = false);

}  // namespace deepseek::ops

namespace deepseek::graph {  // where argument-dependent lookup finds them

inline Expr operator+(Expr a, Expr b) { return ops::add(a, b); }
inline Expr operator-(Expr a, Expr b) { return ops::sub(a, b); }
inline Expr operator*(Expr a, Expr b) { return ops::mul(a, b); }
inline Expr operator/(Expr a, Expr b) { return ops::div(a, b); }
inline Expr operator-(Expr a) { return ops::neg(a); }
inline Expr operator+(Expr a, double b) { return ops::add(a, ops::constant_like(a, b)); }
inline Expr operator-(Expr a, double b) { return ops::sub(a, ops::constant_like(a, b)); }
inline Expr operator*(Expr a, double b) { return ops::mul(a, ops::constant_like(a, b)); }
inline Expr operator/(Expr a, double b) { return ops::div(a, ops::constant_like(a, b)); }
inline Expr operator+(double a, Expr b) { return ops::add(ops::constant_like(b, a), b); }
inline Expr operator-(double a, Expr b) { return ops::sub(ops::constant_like(b, a), b); }
inline Expr operator*(double a, Expr b) { return ops::mul(ops::constant_like(b, a), b); }
inline Expr operator/(double a, Expr b) { return ops::div(ops::constant_like(b, a), b); }

}  // namespace deepseek::graph
