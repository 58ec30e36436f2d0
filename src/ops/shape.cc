// Shape ops: reshape, transpose, broadcast_to, concat, slice, pad, flip.
#include <algorithm>

#include "ops/common.h"

namespace deepseek::ops {
namespace {

TypesOrError infer_reshape(const OpContext& c) {
  Dims dims = c.ints("dims");
  int64_t wild = -1;
  Dims given;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] == -1 && wild < 0)
      wild = static_cast<int64_t>(i);
    else if (dims[i] < 0)
      return invalid("expected dims >= 0 and at most one -1, got {}", to_string(dims));
    else
      given.push_back(dims[i]);
  }
  const int64_t known = product(given);
  const int64_t n = c.in(0).num_elements();
  if (wild >= 0 && known > 0 && n % known == 0)
    dims[wild] = n / known;
  else if (wild >= 0)
    return invalid("cannot reshape {} ({} elements) to {}", to_string(c.in(0)), n, to_string(c.ints("dims")));
  if (product(dims) != n)
    return invalid("cannot reshape {} ({} elements) to {} ({} elements)", to_string(c.in(0)), n, to_string(dims),
                   product(dims));
  return std::vector<TensorType>{{c.in(0).dtype, std::move(dims)}};
}

TypesOrError infer_transpose(const OpContext& c) {
  const Dims& perm = c.ints("permutation");
  Dims sorted = perm;
  std::sort(sorted.begin(), sorted.end());
  Dims dims;
  for (int64_t i = 0; i < c.in(0).rank(); ++i)
    if (static_cast<int64_t>(perm.size()) != c.in(0).rank() || sorted[i] != i)
      return invalid("expected a permutation of the {} axes of {}, got {}", c.in(0).rank(), to_string(c.in(0)),
                     to_string(perm));
  if (!perm.empty() && c.in(0).rank() == 0)
    return invalid("expected an empty permutation for a scalar, got {}", to_string(perm));
  for (int64_t p : perm) dims.push_back(c.in(0).dims[p]);
  return std::vector<TensorType>{{c.in(0).dtype, std::move(dims)}};
}

// Copies by gathering: out[index] = in[source(index)]; source < 0 leaves `fill`.
template <class Source>
void gather_copy(const RefTensor& in, RefTensor& out, double fill, Source source) {
  Dims index(out.dims.size());
  for (double& y : out.data) {
    const int64_t s = source(index);
    y = s < 0 ? fill : in.data[s];
    next_index(index, out.dims);
  }
}

TypesOrError infer_concat(const OpContext& c) {
  if (c.num_inputs() == 0) return invalid("expected at least one input, got none");
  DS_ASSIGN(int64_t axis, normalize_axis(c.integer("axis"), c.in(0).rank()));
  TensorType out = c.in(0);
  for (size_t i = 1; i < c.num_inputs(); ++i) {
    Dims rest = c.in(i).dims;
    if (c.in(i).rank() == out.rank()) rest[axis] = out.dims[axis];
    if (c.in(i).dtype != out.dtype || rest != out.dims)
      return invalid("expected inputs that differ only on axis {}, got {} and (input {}) {}", axis, to_string(c.in(0)),
                     i, to_string(c.in(i)));
    out.dims[axis] += c.in(i).dims[axis];
  }
  return std::vector<TensorType>{out};
}

TypesOrError infer_slice(const OpContext& c) {
  DS_ASSIGN(int64_t axis, normalize_axis(c.integer("axis"), c.in(0).rank()));
  const int64_t n = c.in(0).dims[axis], start = c.integer("start"), stop = c.integer("stop"), step = c.integer("step");
  if (start < 0 || stop < start || stop > n || step < 1)
    return invalid("expected 0 <= start <= stop <= {} and step >= 1 on axis {} of {}, got start {}, stop {}, step {}",
                   n, axis, to_string(c.in(0)), start, stop, step);
  TensorType out = c.in(0);
  out.dims[axis] = stop == start ? 0 : (stop - start - 1) / step + 1;  // step may be huge
  return std::vector<TensorType>{out};
}

TypesOrError infer_pad(const OpContext& c) {
  const Dims &low = c.ints("low"), &high = c.ints("high"), &inner = c.ints("interior");
  const size_t rank = c.in(0).dims.size();
  if (low.size() != rank || high.size() != rank || (inner.size() != rank && !inner.empty()))
    return invalid("expected {} amounts, one per axis of {}, got low {}, high {}, interior {}", rank,
                   to_string(c.in(0)), to_string(low), to_string(high), to_string(inner));
  TensorType out = c.in(0);
  for (size_t i = 0; i < rank; ++i) {
    const int64_t between = inner.empty() ? 0 : inner[i];
    if (low[i] < 0 || high[i] < 0 || between < 0)
      return invalid("expected amounts >= 0, got low {}, high {}, interior {}; crop with slice", to_string(low),
                     to_string(high), to_string(inner));
    out.dims[i] += low[i] + high[i] + between * std::max<int64_t>(out.dims[i] - 1, 0);
  }
  return std::vector<TensorType>{out};
}

OpDef pad_op() {
  return {.name = "pad",
          .doc = "Puts `value` around the tensor and, with interior > 0, between its elements.",
          .inputs = std::vector<OperandSpec>{{"x", "any"}},
          .outputs = std::vector<OperandSpec>{{"y", "the larger tensor"}},
          .attrs = {{"low", AttrKind::kInts, {}, "elements before, per axis"},
                    {"high", AttrKind::kInts, {}, "elements after, per axis"},
                    {"interior", AttrKind::kInts, Dims{}, "elements between neighbours, per axis; empty means none"},
                    {"value", AttrKind::kFloat, 0.0, "what to fill with"}},
          .infer = infer_pad,
          .gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
            Expr dx = g.output_grads[0];
            const Dims &low = g.node.ints("low"), &inner = g.node.ints("interior");
            for (int64_t i = 0; i < dx.rank(); ++i) {
              const int64_t n = g.inputs[0].dim(i), step = inner.empty() ? 1 : inner[i] + 1;
              if (low[i] != 0 || n != dx.dim(i))
                dx = slice(dx, i, low[i], n == 0 ? low[i] : low[i] + (n - 1) * step + 1, step);
            }
            return {dx};
          }),
          .reference = Reference::kernel(
              [](const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
                const Dims &low = c.ints("low"), &inner = c.ints("interior"), &dims = in[0].dims;
                gather_copy(in[0], out[0], c.number("value"), [&](const Dims& index) {
                  int64_t offset = 0;
                  for (size_t i = 0; i < index.size(); ++i) {
                    const int64_t step = inner.empty() ? 1 : inner[i] + 1, p = index[i] - low[i];
                    if (p < 0 || p % step != 0 || p / step >= dims[i]) return int64_t{-1};
                    offset = offset * dims[i] + p / step;
                  }
                  return offset;
                });
                return {};
              }),
          .cost = moves_all,
          .precision = Precision::kFollow,
          .samples = std::vector<Sample>{
              {"around_nothing", {f32({0, 3})}, {{"low", Dims{1, 0}}, {"high", Dims{2, 0}}, {"value", 1.5}}},
              {"border", {f32({2, 3})}, {{"low", Dims{1, 0}}, {"high", Dims{0, 2}}, {"value", 1.5}}},
              {"interior",
               {f32({2, 3, 4})},
               {{"low", Dims{0, 1, 0}}, {"high", Dims{0, 0, 1}}, {"interior", Dims{0, 1, 2}}}}}};
}

std::vector<OpDef> view_ops() {
  std::vector<OpDef> defs;
  defs.push_back({.name = "reshape",
                  .doc = "The same elements in row-major order under another shape; one dim may be -1.",
                  .inputs = std::vector<OperandSpec>{{"x", "any"}},
                  .outputs = std::vector<OperandSpec>{{"y", "shape dims"}},
                  .attrs = {{"dims", AttrKind::kInts, {}, "the new shape"}},
                  .infer = infer_reshape,
                  .gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
                    return {reshape(g.output_grads[0], g.inputs[0].dims())};
                  }),
                  .reference = Reference::kernel(
                      [](const OpContext&, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
                        out[0].data = in[0].data;
                        return {};
                      }),
                  .cost = moves_all,
                  .traits = {.view = true},
                  .samples = std::vector<Sample>{{"fold", {f32({2, 3, 4})}, {{"dims", Dims{6, -1}}}},
                                                 {"to_scalar", {f32({1, 1})}, {{"dims", Dims{}}}},
                                                 {"empty", {f32({0, 3})}, {{"dims", Dims{7, 0}}}}}});
  defs.push_back({.name = "transpose",
                  .doc = "Permutes axes: y's axis i is x's axis permutation[i].",
                  .inputs = std::vector<OperandSpec>{{"x", "any"}},
                  .outputs = std::vector<OperandSpec>{{"y", "permuted shape"}},
                  .attrs = {{"permutation", AttrKind::kInts, {}, "a permutation of the axes"}},
                  .infer = infer_transpose,
                  .gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
                    const Dims& perm = g.node.ints("permutation");
                    Dims inverse(perm.size());
                    for (size_t i = 0; i < perm.size(); ++i) inverse[perm[i]] = static_cast<int64_t>(i);
                    return {transpose(g.output_grads[0], inverse)};
                  }),
                  .reference = Reference::kernel(
                      [](const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
                        const Dims strides = graph::contiguous_strides(in[0].dims);
                        const Dims& perm = c.ints("permutation");
                        gather_copy(in[0], out[0], 0, [&](const Dims& index) {
                          int64_t offset = 0;
                          for (size_t i = 0; i < index.size(); ++i) offset += index[i] * strides[perm[i]];
                          return offset;
                        });
                        return {};
                      }),
                  .cost = moves_all,
                  .precision = Precision::kFollow,
                  .samples = std::vector<Sample>{{"matrix", {f32({3, 5})}, {{"permutation", Dims{1, 0}}}},
                                                 {"empty", {f32({0, 5})}, {{"permutation", Dims{1, 0}}}},
                                                 {"heads", {f32({2, 3, 4, 5})}, {{"permutation", Dims{0, 2, 1, 3}}}},
                                                 {"rotate", {f32({2, 3, 4})}, {{"permutation", Dims{2, 0, 1}}}}}});
  defs.push_back(
      {.name = "broadcast_to",
       .doc = "Repeats axes of size 1, and adds leading ones, to reach dims (NumPy rules).",
       .inputs = std::vector<OperandSpec>{{"x", "broadcasts to dims"}},
       .outputs = std::vector<OperandSpec>{{"y", "shape dims"}},
       .attrs = {{"dims", AttrKind::kInts, {}, "the new shape"}},
       .infer = [](const OpContext& c) -> TypesOrError {
         Result<Dims> dims = graph::broadcast_dims(c.in(0).dims, c.ints("dims"));
         if (!dims.ok() || *dims != c.ints("dims"))
           return invalid("{} does not broadcast to {}", to_string(c.in(0)), to_string(c.ints("dims")));
         return std::vector<TensorType>{{c.in(0).dtype, c.ints("dims")}};
       },
       .gradient = Gradient::rule(
           [](GradContext& g) -> std::vector<Expr> { return {sum_to(g.output_grads[0], g.inputs[0].dims())}; }),
       .reference =
           Reference::kernel([](const OpContext&, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
             gather_copy(in[0], out[0], 0, [&](const Dims& index) { return broadcast_offset(index, in[0].dims); });
             return {};
           }),
       .cost = moves_all,
       .traits = {.elementwise = true},
       .samples = std::vector<Sample>{{"rows", {f32({3})}, {{"dims", Dims{2, 3}}}},
                                      {"to_nothing", {f32({1, 3})}, {{"dims", Dims{2, 0, 3}}}},
                                      {"columns", {f32({2, 1, 4})}, {{"dims", Dims{3, 2, 5, 4}}}}}});
  return defs;
}

std::vector<OpDef> copy_ops() {
  std::vector<OpDef> defs;
  defs.push_back({.name = "concat",
                  .doc = "Joins tensors along an axis.",
                  .inputs = std::vector<OperandSpec>{{"parts", "one dtype, shapes equal but on the axis", false, true}},
                  .outputs = std::vector<OperandSpec>{{"y", "the joined tensor"}},
                  .attrs = {{"axis", AttrKind::kInt, int64_t{0}, "the axis to join, negative from the end"}},
                  .infer = infer_concat,
                  .gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
                    const int64_t axis = *normalize_axis(g.node.integer("axis"), g.node.in(0).rank());
                    std::vector<Expr> grads;
                    int64_t begin = 0;
                    for (size_t i = 0; i < g.inputs.size(); ++i) {
                      const int64_t end = begin + g.inputs[i].dim(axis);
                      grads.push_back(g.needs[i] ? slice(g.output_grads[0], axis, begin, end) : Expr());
                      begin = end;
                    }
                    return grads;
                  }),
                  .reference = Reference::kernel(
                      [](const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
                        const int64_t axis = *normalize_axis(c.integer("axis"), c.in(0).rank());
                        const int64_t outer = product(std::span(out[0].dims).first(axis));
                        double* y = out[0].data.data();
                        for (int64_t o = 0; o < outer; ++o)
                          for (const RefTensor& part : in) {
                            const int64_t n = static_cast<int64_t>(part.data.size()) / outer;
                            y = std::copy_n(part.data.data() + o * n, n, y);
                          }
                        return {};
                      }),
                  .cost = moves_all,
                  .precision = Precision::kFollow,
                  .samples = std::vector<Sample>{
                      {"rows", {f32({2, 3}), f32({1, 3})}},
                      {"with_nothing", {f32({0, 3}), f32({2, 3})}},
                      {"empty", {f32({0, 3}), f32({0, 2})}, {{"axis", int64_t{1}}}},
                      {"three", {f32({2, 3, 2}), f32({2, 1, 2}), f32({2, 4, 2})}, {{"axis", int64_t{1}}}},
                      {"last", {f32({2, 3}), f32({2, 2})}, {{"axis", int64_t{-1}}}}}});
  defs.push_back({.name = "slice",
                  .doc = "Elements start, start + step, ... below stop of one axis.",
                  .inputs = std::vector<OperandSpec>{{"x", "rank >= 1"}},
                  .outputs = std::vector<OperandSpec>{{"y", "x with a shorter axis"}},
                  .attrs = {{"axis", AttrKind::kInt, int64_t{0}, "the axis, negative from the end"},
                            {"start", AttrKind::kInt, int64_t{0}, "first index, >= 0"},
                            {"stop", AttrKind::kInt, {}, "end, not included"},
                            {"step", AttrKind::kInt, int64_t{1}, "distance of the elements, >= 1"}},
                  .infer = infer_slice,
                  .gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
                    Expr dy = g.output_grads[0];
                    const size_t rank = g.node.in(0).dims.size();
                    const int64_t axis = *normalize_axis(g.node.integer("axis"), static_cast<int64_t>(rank));
                    const int64_t step = g.node.integer("step"), start = g.node.integer("start"), n = dy.dim(axis);
                    Dims low(rank), high(rank), inner(rank);
                    low[axis] = start;
                    inner[axis] = step - 1;
                    high[axis] = g.inputs[0].dim(axis) - start - (n == 0 ? 0 : (n - 1) * step + 1);
                    return {dy.builder().op("pad", {dy}, {{"low", low}, {"high", high}, {"interior", inner}})};
                  }),
                  .reference = Reference::kernel(
                      [](const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
                        const int64_t axis = *normalize_axis(c.integer("axis"), c.in(0).rank());
                        const Dims strides = graph::contiguous_strides(in[0].dims);
                        gather_copy(in[0], out[0], 0, [&](const Dims& index) {
                          int64_t offset = c.integer("start") * strides[axis];
                          for (size_t i = 0; i < index.size(); ++i)
                            offset += index[i] * strides[i] * (static_cast<int64_t>(i) == axis ? c.integer("step") : 1);
                          return offset;
                        });
                        return {};
                      }),
                  .cost = moves_part,
                  .precision = Precision::kFollow,
                  .samples = std::vector<Sample>{
                      {"rows", {f32({5, 3})}, {{"start", int64_t{1}}, {"stop", int64_t{4}}}},
                      {"step",
                       {f32({2, 7, 3})},
                       {{"axis", int64_t{1}}, {"start", int64_t{1}}, {"stop", int64_t{7}}, {"step", int64_t{2}}}},
                      {"empty", {f32({4})}, {{"start", int64_t{2}}, {"stop", int64_t{2}}}}}});
  defs.push_back(
      {.name = "flip",
       .doc = "Reverses one axis.",
       .inputs = std::vector<OperandSpec>{{"x", "rank >= 1"}},
       .outputs = std::vector<OperandSpec>{{"y", "x's shape"}},
       .attrs = {{"axis", AttrKind::kInt, int64_t{0}, "the axis, negative from the end"}},
       .infer = [](const OpContext& c) -> TypesOrError {
         DS_TRY(normalize_axis(c.integer("axis"), c.in(0).rank()).status());
         return same_as_input(c);
       },
       .gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
         return {g.builder.op("flip", {g.output_grads[0]}, *g.node.attrs)};
       }),
       .reference =
           Reference::kernel([](const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
             const int64_t axis = *normalize_axis(c.integer("axis"), c.in(0).rank());
             gather_copy(in[0], out[0], 0, [&](const Dims& index) {
               Dims from = index;
               from[axis] = in[0].dims[axis] - 1 - index[axis];
               return broadcast_offset(from, in[0].dims);
             });
             return {};
           }),
       .cost = moves_all,
       .precision = Precision::kFollow,
       .samples = std::vector<Sample>{
           {"rows", {f32({4, 3})}}, {"last", {f32({2, 3, 5})}, {{"axis", int64_t{-1}}}}, {"empty", {f32({0, 3})}}}});
  defs.push_back(pad_op());
  return defs;
}

}  // namespace

Status register_shape(OpRegistry& registry) {
  DS_TRY(add_all(registry, view_ops()));
  return add_all(registry, copy_ops());
}

}  // namespace deepseek::ops
