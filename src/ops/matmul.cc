// Batched matrix product.
#include "ops/common.h"
#include "ops/dtypes.h"

namespace deepseek::ops {
namespace {

struct MatmulShape {
  Dims batch;  // broadcast
  int64_t m, k, n;
};

Result<MatmulShape> matmul_shape(const OpContext& c) {
  const TensorType &a = c.in(0), &b = c.in(1);
  if (a.rank() < 2 || b.rank() < 2)
    return invalid("expected matrices (rank >= 2), got {} and {}; reshape vectors to [1,k] or [k,1]", to_string(a),
                   to_string(b));
  if (a.dtype != b.dtype || !is_float(a.dtype)) return not_one_float_dtype(a, b);
  const bool ta = c.flag("transpose_a"), tb = c.flag("transpose_b");
  const size_t ra = a.dims.size(), rb = b.dims.size();
  MatmulShape s;
  s.m = a.dims[ra - (ta ? 1 : 2)];
  s.k = a.dims[ra - (ta ? 2 : 1)];
  s.n = b.dims[rb - (tb ? 2 : 1)];
  if (const int64_t kb = b.dims[rb - (tb ? 1 : 2)]; kb != s.k)
    return invalid("expected equal inner sizes, got {} of {}{} and {} of {}{}", s.k, to_string(a),
                   ta ? " transposed" : "", kb, to_string(b), tb ? " transposed" : "");
  DS_ASSIGN(s.batch,
            graph::broadcast_dims(Dims(a.dims.begin(), a.dims.end() - 2), Dims(b.dims.begin(), b.dims.end() - 2)));
  return s;
}

// [..., k] as [rows, k]. Where there are no elements -1 would say nothing.
Expr rows(Expr e) {
  const Dims dims = e.dims();
  const int64_t n = product(std::span(dims).first(dims.size() - 1));
  return reshape(e, {product(dims) == 0 ? n : -1, dims.back()});
}

// d(op(A) op(B)) for the four transpositions; products are arranged so that no explicit transpose is needed.
std::vector<Expr> matmul_gradient(GradContext& g) {
  const bool ta = g.node.flag("transpose_a"), tb = g.node.flag("transpose_b");
  Expr a = g.inputs[0], b = g.inputs[1], dy = g.output_grads[0];
  std::vector<Expr> grads(2);
  if (g.needs[0]) grads[0] = sum_to(ta ? matmul(b, dy, tb, true) : matmul(dy, b, false, !tb), a.dims());
  if (g.needs[1]) {
    if (!tb && !ta && b.rank() == 2 && a.rank() > 2) {
      // Shared weights: fold the batch into the inner axis, one product instead of a batch of them and a sum.
      grads[1] = matmul(rows(a), rows(dy), true, false);
    } else if (tb && !ta && b.rank() == 2 && a.rank() > 2) {
      grads[1] = matmul(rows(dy), rows(a), true, false);
    } else {
      grads[1] = sum_to(tb ? matmul(dy, a, true, ta) : matmul(a, dy, !ta, false), b.dims());
    }
  }
  return grads;
}

Status matmul_reference(const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) {
  const MatmulShape s = *matmul_shape(c);
  const bool ta = c.flag("transpose_a"), tb = c.flag("transpose_b");
  const Dims batch_a(in[0].dims.begin(), in[0].dims.end() - 2), batch_b(in[1].dims.begin(), in[1].dims.end() - 2);
  Dims index(s.batch.size());
  for (int64_t i = 0; i < product(s.batch); ++i, next_index(index, s.batch)) {
    const double* a = in[0].data.data() + broadcast_offset(index, batch_a) * s.m * s.k;
    const double* b = in[1].data.data() + broadcast_offset(index, batch_b) * s.k * s.n;
    double* y = out[0].data.data() + i * s.m * s.n;
    for (int64_t m = 0; m < s.m; ++m)
      for (int64_t n = 0; n < s.n; ++n) {
        double acc = 0;
        for (int64_t k = 0; k < s.k; ++k) acc += a[ta ? k * s.m + m : m * s.k + k] * b[tb ? n * s.k + k : k * s.n + n];
        y[m * s.n + n] = acc;
      }
  }
  return {};
}

void matmul_cost(const OpContext& c, std::span<const TensorType>, graph::Cost& cost) {
  const MatmulShape s = *matmul_shape(c);
  cost.flops = 2.0 * static_cast<double>(product(s.batch)) * static_cast<double>(s.m) * static_cast<double>(s.k) *
               static_cast<double>(s.n);
}

}  // namespace

Status register_matmul(OpRegistry& registry) {
  const auto t = [](bool a, bool b) { return Attrs{{"transpose_a", a}, {"transpose_b", b}}; };
  return add_all(
      registry,
      {{.name = "matmul",
        .doc = "Matrix product of the last two axes; leading axes are batches and broadcast.",
        .inputs = std::vector<OperandSpec>{{"a", "float [..., m, k], or [..., k, m] with transpose_a"},
                                           {"b", "float [..., k, n], or [..., n, k] with transpose_b"}},
        .outputs = std::vector<OperandSpec>{{"y", "[..., m, n]"}},
        .attrs = {{"transpose_a", AttrKind::kBool, false, "swap the last two axes of a"},
                  {"transpose_b", AttrKind::kBool, false, "swap the last two axes of b"}},
        .infer = [](const OpContext& c) -> TypesOrError {
          DS_ASSIGN(MatmulShape s, matmul_shape(c));
          Dims dims = s.batch;
          dims.push_back(s.m);
          dims.push_back(s.n);
          return std::vector<TensorType>{{c.in(0).dtype, std::move(dims)}};
        },
        .gradient = Gradient::rule(matmul_gradient),
        .reference = Reference::kernel(matmul_reference),
        .cost = matmul_cost,
        .precision = Precision::kLow,
        .samples = std::vector<Sample>{{"plain", {f32({5, 7}), f32({7, 3})}},
                                       {"no_rows", {f32({0, 7}), f32({7, 3})}},
                                       {"of_nothing", {f32({5, 0}), f32({0, 3})}},
                                       {"no_batch", {f32({0, 4, 5}), f32({0, 5, 6})}},
                                       {"transpose_a", {f32({7, 5}), f32({7, 3})}, t(true, false)},
                                       {"transpose_b", {f32({5, 7}), f32({3, 7})}, t(false, true)},
                                       {"transpose_both", {f32({7, 5}), f32({3, 7})}, t(true, true)},
                                       {"batch", {f32({2, 3, 4, 5}), f32({2, 3, 5, 6})}},
                                       {"batch_transposed", {f32({2, 3, 4, 5}), f32({2, 3, 6, 5})}, t(false, true)},
                                       {"broadcast_batch", {f32({2, 1, 4, 5}), f32({3, 5, 2})}},
                                       {"shared_weight", {f32({3, 4, 5}), f32({5, 6})}},
                                       {"shared_weight_transposed", {f32({3, 4, 5}), f32({6, 5})}, t(false, true)},
                                       {"empty_inner", {f32({2, 0}), f32({0, 3})}}}}});
}

}  // namespace deepseek::ops
