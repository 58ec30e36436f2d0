#include "ops/dsl.h"

namespace deepseek::ops {
namespace {

Expr unary(const char* op, Expr a) { return a.builder().op(op, {a}); }
Expr binary(const char* op, Expr a, Expr b) { return (a.builder_or_null() ? a : b).builder().op(op, {a, b}); }
Expr reduce(const char* op, Expr a, Dims axes, bool keepdims) {
  return a.builder().op(op, {a}, {{"axes", std::move(axes)}, {"keepdims", keepdims}});
}

}  // namespace

Expr add(Expr a, Expr b) { return binary("add", a, b); }
Expr sub(Expr a, Expr b) { return binary("sub", a, b); }
Expr mul(Expr a, Expr b) { return binary("mul", a, b); }
Expr div(Expr a, Expr b) { return binary("div", a, b); }
Expr pow(Expr a, Expr b) { return binary("pow", a, b); }
Expr maximum(Expr a, Expr b) { return binary("maximum", a, b); }
Expr minimum(Expr a, Expr b) { return binary("minimum", a, b); }
Expr equal(Expr a, Expr b) { return binary("equal", a, b); }
Expr less(Expr a, Expr b) { return binary("less", a, b); }
Expr greater(Expr a, Expr b) { return binary("greater", a, b); }
Expr greater_equal(Expr a, Expr b) { return binary("greater_equal", a, b); }
Expr select(Expr c, Expr a, Expr b) { return c.builder().op("select", {c, a, b}); }
Expr cast(Expr a, DType dtype) {
  return !a.defined() || a.dtype() == dtype ? a : a.builder().op("cast", {a}, {{"dtype", dtype}});
}
Expr constant_like(Expr a, double value) { return a.builder().scalar(a.dtype(), value); }
Expr zeros_like(Expr a) { return broadcast_to(constant_like(a, 0), a.dims()); }

Expr neg(Expr a) { return unary("neg", a); }
Expr exp(Expr a) { return unary("exp", a); }
Expr log(Expr a) { return unary("log", a); }
Expr sqrt(Expr a) { return unary("sqrt", a); }
Expr rsqrt(Expr a) { return unary("rsqrt", a); }
Expr abs(Expr a) { return unary("abs", a); }
Expr sign(Expr a) { return unary("sign", a); }
Expr tanh(Expr a) { return unary("tanh", a); }
Expr sigmoid(Expr a) { return unary("sigmoid", a); }
Expr relu(Expr a) { return unary("relu", a); }
Expr square(Expr a) { return mul(a, a); }
Expr reciprocal(Expr a) { return unary("reciprocal", a); }

Expr sum(Expr a, Dims axes, bool keepdims) { return reduce("sum", a, std::move(axes), keepdims); }
Expr mean(Expr a, Dims axes, bool keepdims) { return reduce("mean", a, std::move(axes), keepdims); }
Expr max(Expr a, Dims axes, bool keepdims) { return reduce("max", a, std::move(axes), keepdims); }

Expr sum_to(Expr a, const Dims& dims) {
  if (!a.defined() || a.dims() == dims) return a;
  Dims axes;
  const int64_t extra = a.rank() - static_cast<int64_t>(dims.size());
  for (int64_t i = 0; i < a.rank(); ++i)
    if (i < extra || (dims[i - extra] == 1 && a.dim(i) != 1)) axes.push_back(i);
  Expr reduced = axes.empty() ? a : sum(a, axes, false);
  return reduced.dims() == dims ? reduced : reshape(reduced, dims);
}

Expr reshape(Expr a, Dims dims) { return a.builder().op("reshape", {a}, {{"dims", std::move(dims)}}); }
Expr transpose(Expr a, Dims permutation) {
  return a.builder().op("transpose", {a}, {{"permutation", std::move(permutation)}});
}
Expr broadcast_to(Expr a, const Dims& dims) {
  return a.defined() && a.dims() == dims ? a : a.builder().op("broadcast_to", {a}, {{"dims", dims}});
}
Expr concat(std::vector<Expr> parts, int64_t axis) {
  Builder& builder = parts.at(0).builder();
  return builder.op("concat", std::move(parts), {{"axis", axis}});
}
Expr slice(Expr a, int64_t axis, int64_t start, int64_t stop, int64_t step) {
  return a.builder().op("slice", {a}, {{"axis", axis}, {"start", start}, {"stop", stop}, {"step", step}});
}
Expr matmul(Expr a, Expr b, bool transpose_a, bool transpose_b) {
  return a.builder().op("matmul", {a, b}, {{"transpose_a", transpose_a}, {"transpose_b", transpose_b}});
}

}  // namespace deepseek::ops
