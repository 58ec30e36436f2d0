// Indexing: gather and scatter_add, take_along_axis and its adjoint, embedding, one_hot, top_k, cumsum.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/common.h"

namespace deepseek::ops {
namespace {

Status check_indices(const TensorType& t) {
  if (t.dtype != DType::kI64 && t.dtype != DType::kI32)
    return invalid("expected i64 or i32 indices, got {}; cast them", to_string(t));
  return {};
}

Status check_range(double index, int64_t n, int64_t position) {
  if (index >= 0 && index < static_cast<double>(n)) return {};
  return invalid("index {} at position {} is out of range [0, {})", static_cast<int64_t>(index), position, n);
}

// dims with the axes [axis, axis + count) replaced.
Dims replace_axes(const Dims& dims, int64_t axis, int64_t count, const Dims& by) {
  Dims out(dims.begin(), dims.begin() + axis);
  out.insert(out.end(), by.begin(), by.end());
  out.insert(out.end(), dims.begin() + axis + count, dims.end());
  return out;
}

TypesOrError infer_gather(const OpContext& c) {
  DS_TRY(check_indices(c.in(1)));
  DS_ASSIGN(int64_t axis, normalize_axis(c.integer("axis"), c.in(0).rank()));
  return std::vector<TensorType>{{c.in(0).dtype, replace_axes(c.in(0).dims, axis, 1, c.in(1).dims)}};
}

// The axis counts in the output's rank.
TypesOrError infer_scatter_add(const OpContext& c) {
  DS_TRY(check_indices(c.in(1)));
  const int64_t count = c.in(1).rank(), rank = c.in(0).rank() - count + 1;
  if (rank < 1)
    return invalid("expected updates with the axes of the indices {} in them, got {}", to_string(c.in(1)),
                   to_string(c.in(0)));
  DS_ASSIGN(int64_t axis, normalize_axis(c.integer("axis"), rank));
  if (!std::equal(c.in(1).dims.begin(), c.in(1).dims.end(), c.in(0).dims.begin() + axis))
    return invalid("expected updates with the axes {} from axis {} on, got {}", to_string(c.in(1).dims), axis,
                   to_string(c.in(0)));
  if (c.integer("dim_size") < 0) return invalid("expected dim_size >= 0, got {}", c.integer("dim_size"));
  return std::vector<TensorType>{{c.in(0).dtype, replace_axes(c.in(0).dims, axis, count, {c.integer("dim_size")})}};
}

// move(offset on the side with n elements on the axis, offset on the side with the indices' axes).
template <class Move>
Status for_each_gathered(const Dims& small_dims, int64_t axis, const RefTensor& indices, Move move) {
  const int64_t n = small_dims[axis], count = static_cast<int64_t>(indices.data.size());
  const int64_t inner = product(std::span(small_dims).subspan(axis + 1));
  for (int64_t i = 0; i < count; ++i) DS_TRY(check_range(indices.data[i], n, i));
  for (int64_t outer = 0; outer < product(std::span(small_dims).first(axis)); ++outer)
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < inner; ++j)
        move((outer * n + static_cast<int64_t>(indices.data[i])) * inner + j, (outer * count + i) * inner + j);
  return {};
}

std::vector<OpDef> gather_ops() {
  std::vector<OpDef> defs;
  defs.push_back(
      {.name = "gather",
       .doc = "Slices of x along an axis, by index (numpy.take): the indices' axes stand in place of the axis. "
              "An index outside [0, size) is an error.",
       .inputs = std::vector<OperandSpec>{{"x", "rank >= 1"}, {"indices", "i64 or i32, any shape"}},
       .outputs = std::vector<OperandSpec>{{"y", "x's shape with the axis replaced by the indices' shape"}},
       .attrs = {{"axis", AttrKind::kInt, int64_t{0}, "the axis to index, negative from the end"}},
       .infer = infer_gather,
       .gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
         const int64_t axis = *normalize_axis(g.node.integer("axis"), g.node.in(0).rank());
         return {g.builder.op("scatter_add", {g.output_grads[0], g.inputs[1]},
                              {{"axis", axis}, {"dim_size", g.inputs[0].dim(axis)}}),
                 Expr()};
       }),
       .reference =
           Reference::kernel([](const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
             const int64_t axis = *normalize_axis(c.integer("axis"), c.in(0).rank());
             return for_each_gathered(in[0].dims, axis, in[1],
                                      [&](int64_t x, int64_t y) { out[0].data[y] = in[0].data[x]; });
           }),
       .cost = moves_part,
       .precision = Precision::kFollow,
       .samples = std::vector<Sample>{{"rows", {f32({7, 5}), indices({4}, 7)}},
                                      {"matrix_of_indices", {f32({7, 5}), indices({2, 3}, 7)}},
                                      {"middle", {f32({2, 6, 3}), indices({4}, 6)}, {{"axis", int64_t{1}}}},
                                      {"last", {f32({3, 4}), indices({5}, 4)}, {{"axis", int64_t{-1}}}},
                                      {"scalar_index", {f32({4, 3}), indices({}, 4)}},
                                      {"nothing", {f32({7, 5}), indices({0}, 7)}}}});
  defs.push_back(
      {.name = "scatter_add",
       .doc = "Adds slices into zeros by index: the adjoint of gather. Slices of one index are summed.",
       .inputs = std::vector<OperandSpec>{{"updates", "numbers; the indices' axes stand from `axis` on"},
                                          {"indices", "i64 or i32, any shape, in [0, dim_size)"}},
       .outputs = std::vector<OperandSpec>{{"y", "updates' shape with the indices' axes replaced by dim_size"}},
       .attrs = {{"axis", AttrKind::kInt, int64_t{0}, "the axis of y that is indexed, negative from the end"},
                 {"dim_size", AttrKind::kInt, {}, "size of that axis"}},
       .infer = infer_scatter_add,
       .gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
         return {g.builder.op("gather", {g.output_grads[0], g.inputs[1]}, {{"axis", g.node.integer("axis")}}), Expr()};
       }),
       .reference =
           Reference::kernel([](const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
             const int64_t axis = *normalize_axis(c.integer("axis"), static_cast<int64_t>(out[0].dims.size()));
             return for_each_gathered(out[0].dims, axis, in[1],
                                      [&](int64_t y, int64_t u) { out[0].data[y] += in[0].data[u]; });
           }),
       .samples = std::vector<Sample>{
           {"rows", {f32({9, 5}), indices({9}, 4)}, {{"dim_size", int64_t{4}}}},
           {"nothing", {f32({0, 5}), indices({0}, 4)}, {{"dim_size", int64_t{4}}}},
           {"matrix_of_indices", {f32({2, 3, 5}), indices({2, 3}, 4)}, {{"dim_size", int64_t{6}}}},
           {"last", {f32({3, 7}), indices({7}, 4)}, {{"axis", int64_t{-1}}, {"dim_size", int64_t{4}}}}}});
  return defs;
}

Status check_along_axis(const OpContext& c, int64_t axis, bool same_axis) {
  DS_TRY(check_indices(c.in(1)));
  Dims expected = c.in(0).dims;
  if (c.in(1).rank() == c.in(0).rank() && !same_axis) expected[axis] = c.in(1).dims[axis];
  if (c.in(1).dims != expected)
    return invalid("expected indices with the shape of {}{}, got {}", to_string(c.in(0)),
                   same_axis ? "" : fmt::format(" but on axis {}", axis), to_string(c.in(1)));
  return {};
}

// move(offset on the indexed side, offset on the indices' side).
template <class Move>
Status for_each_along_axis(const Dims& indexed, int64_t axis, const RefTensor& indices, Move move) {
  const int64_t n = indexed[axis], k = indices.dims[axis], inner = product(std::span(indexed).subspan(axis + 1));
  for (int64_t i = 0; i < static_cast<int64_t>(indices.data.size()); ++i) {
    DS_TRY(check_range(indices.data[i], n, i));
    move((i / (k * inner) * n + static_cast<int64_t>(indices.data[i])) * inner + i % inner, i);
  }
  return {};
}

std::vector<OpDef> along_axis_ops() {
  std::vector<OpDef> defs;
  defs.push_back(
      {.name = "take_along_axis",
       .doc = "y[..i..] = x[..indices[..i..]..] on one axis (numpy.take_along_axis, torch.gather).",
       .inputs = std::vector<OperandSpec>{{"x", "rank >= 1"}, {"indices", "i64 or i32, x's shape but on the axis"}},
       .outputs = std::vector<OperandSpec>{{"y", "the indices' shape"}},
       .attrs = {{"axis", AttrKind::kInt, int64_t{-1}, "the axis to index, negative from the end"}},
       .infer = [](const OpContext& c) -> TypesOrError {
         DS_ASSIGN(int64_t axis, normalize_axis(c.integer("axis"), c.in(0).rank()));
         DS_TRY(check_along_axis(c, axis, false));
         return std::vector<TensorType>{{c.in(0).dtype, c.in(1).dims}};
       },
       .gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
         const int64_t axis = *normalize_axis(g.node.integer("axis"), g.node.in(0).rank());
         return {g.builder.op("put_along_axis_add", {g.output_grads[0], g.inputs[1]},
                              {{"axis", axis}, {"dim_size", g.inputs[0].dim(axis)}}),
                 Expr()};
       }),
       .reference =
           Reference::kernel([](const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
             const int64_t axis = *normalize_axis(c.integer("axis"), c.in(0).rank());
             return for_each_along_axis(in[0].dims, axis, in[1],
                                        [&](int64_t x, int64_t y) { out[0].data[y] = in[0].data[x]; });
           }),
       .cost = moves_part,
       .precision = Precision::kFollow,
       .samples = std::vector<Sample>{{"last", {f32({4, 7}), indices({4, 2}, 7)}},
                                      {"nothing", {f32({4, 7}), indices({4, 0}, 7)}},
                                      {"classes", {f32({3, 5, 2}), indices({3, 1, 2}, 5)}, {{"axis", int64_t{1}}}},
                                      {"first", {f32({4, 3}), indices({6, 3}, 4)}, {{"axis", int64_t{0}}}}}});
  defs.push_back(
      {.name = "put_along_axis_add",
       .doc = "Adds y[..indices[..i..]..] += updates[..i..] into zeros on one axis: the adjoint of take_along_axis.",
       .inputs = std::vector<OperandSpec>{{"updates", "numbers"}, {"indices", "i64 or i32, the updates' shape"}},
       .outputs = std::vector<OperandSpec>{{"y", "the updates' shape with dim_size on the axis"}},
       .attrs = {{"axis", AttrKind::kInt, int64_t{-1}, "the axis to index, negative from the end"},
                 {"dim_size", AttrKind::kInt, {}, "size of that axis"}},
       .infer = [](const OpContext& c) -> TypesOrError {
         DS_ASSIGN(int64_t axis, normalize_axis(c.integer("axis"), c.in(0).rank()));
         DS_TRY(check_along_axis(c, axis, true));
         if (c.integer("dim_size") < 0) return invalid("expected dim_size >= 0, got {}", c.integer("dim_size"));
         return std::vector<TensorType>{{c.in(0).dtype, replace_axes(c.in(0).dims, axis, 1, {c.integer("dim_size")})}};
       },
       .gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
         return {g.builder.op("take_along_axis", {g.output_grads[0], g.inputs[1]}, {{"axis", g.node.integer("axis")}}),
                 Expr()};
       }),
       .reference =
           Reference::kernel([](const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
             const int64_t axis = *normalize_axis(c.integer("axis"), c.in(0).rank());
             return for_each_along_axis(out[0].dims, axis, in[1],
                                        [&](int64_t y, int64_t u) { out[0].data[y] += in[0].data[u]; });
           }),
       .samples = std::vector<Sample>{
           {"last", {f32({4, 6}), indices({4, 6}, 3)}, {{"dim_size", int64_t{3}}}},
           {"nothing", {f32({4, 0}), indices({4, 0}, 3)}, {{"dim_size", int64_t{3}}}},
           {"classes", {f32({3, 1, 2}), indices({3, 1, 2}, 5)}, {{"axis", int64_t{1}}, {"dim_size", int64_t{5}}}}}});
  return defs;
}

OpDef embedding_op() {
  return {
      .name = "embedding",
      .doc = "Rows of a table by index. The row padding_idx takes no gradient.",
      .inputs = std::vector<OperandSpec>{{"weight", "[rows, width]"}, {"indices", "i64 or i32, any shape"}},
      .outputs = std::vector<OperandSpec>{{"y", "[indices' shape..., width]"}},
      .attrs = {{"padding_idx", AttrKind::kInt, int64_t{-1}, "row without gradient, -1 for none"}},
      .infer = [](const OpContext& c) -> TypesOrError {
        DS_TRY(check_indices(c.in(1)));
        if (c.in(0).rank() != 2) return invalid("expected a table [rows, width], got {}", to_string(c.in(0)));
        if (const int64_t p = c.integer("padding_idx"); p < -1 || p >= c.in(0).dims[0])
          return invalid("expected padding_idx in [-1, {}), got {}", c.in(0).dims[0], p);
        return std::vector<TensorType>{{c.in(0).dtype, replace_axes(c.in(0).dims, 0, 1, c.in(1).dims)}};
      },
      .gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
        Expr dy = g.output_grads[0], ids = g.inputs[1];
        if (const int64_t padding = g.node.integer("padding_idx"); padding >= 0) {
          Dims column = ids.dims();
          column.push_back(1);
          Expr pads = equal(reshape(ids, column), constant_like(ids, static_cast<double>(padding)));
          dy = select(pads, constant_like(dy, 0), dy);
        }
        return {g.builder.op("scatter_add", {dy, ids}, {{"axis", int64_t{0}}, {"dim_size", g.inputs[0].dim(0)}}),
                Expr()};
      }),
      .reference = Reference::by_decomposition(),
      .decompose = [](Builder& b, const OpContext&, std::span<const Expr> in) -> std::vector<Expr> {
        return {b.op("gather", {in[0], in[1]}, {{"axis", int64_t{0}}})};
      },
      .precision = Precision::kFollow,
      .samples =
          std::vector<Sample>{{"tokens", {f32({11, 6}), indices({2, 5}, 11)}},
                              {"vector", {f32({4, 3}), indices({7}, 4)}},
                              {"no_tokens", {f32({4, 3}), indices({2, 0}, 4)}},
                              // Differences see the padding row, the gradient leaves it out by design.
                              {"padding", {f32({5, 4}), indices({3, 4}, 5)}, {{"padding_idx", int64_t{0}}}, false}}};
}

OpDef one_hot_op() {
  return {.name = "one_hot",
          .doc = "1 at the index, 0 elsewhere, on a new last axis. An index outside [0, depth) is an error.",
          .inputs = std::vector<OperandSpec>{{"indices", "i64 or i32, any shape"}},
          .outputs = std::vector<OperandSpec>{{"y", "[indices' shape..., depth]"}},
          .attrs = {{"depth", AttrKind::kInt, {}, "size of the new axis"},
                    {"dtype", AttrKind::kDType, DType::kF32, "dtype of y"}},
          .infer = [](const OpContext& c) -> TypesOrError {
            DS_TRY(check_indices(c.in(0)));
            if (c.integer("depth") < 1) return invalid("expected depth >= 1, got {}", c.integer("depth"));
            Dims dims = c.in(0).dims;
            dims.push_back(c.integer("depth"));
            return std::vector<TensorType>{{c.attrs->get<DType>("dtype"), std::move(dims)}};
          },
          .gradient = Gradient::non_differentiable("its input is an index"),
          .reference = Reference::kernel(
              [](const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
                const int64_t depth = c.integer("depth");
                for (int64_t i = 0; i < static_cast<int64_t>(in[0].data.size()); ++i) {
                  DS_TRY(check_range(in[0].data[i], depth, i));
                  out[0].data[i * depth + static_cast<int64_t>(in[0].data[i])] = 1;
                }
                return {};
              }),
          .cost = moves_all,
          .samples = std::vector<Sample>{
              {"labels", {indices({6}, 4)}, {{"depth", int64_t{4}}}, false},
              {"nothing", {indices({0}, 4)}, {{"depth", int64_t{4}}}, false},
              {"matrix", {indices({2, 3}, 5)}, {{"depth", int64_t{7}}, {"dtype", DType::kI64}}, false}}};
}

Status top_k_reference(const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) {
  const int64_t axis = *normalize_axis(c.integer("axis"), c.in(0).rank()), k = c.integer("k"), n = in[0].dims[axis];
  const int64_t inner = product(std::span(in[0].dims).subspan(axis + 1)),
                outer = product(std::span(in[0].dims).first(axis));
  const bool largest = c.flag("largest");
  std::vector<int64_t> order(static_cast<size_t>(n));
  for (int64_t lane = 0; lane < outer * inner; ++lane) {
    const double* x = elements(in[0], lane / inner * n * inner + lane % inner);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) {
      const double a = x[i * inner], b = x[j * inner];
      if (std::isnan(a) || std::isnan(b))
        return largest ? std::isnan(a) && !std::isnan(b) : !std::isnan(a) && std::isnan(b);
      return largest ? a > b : a < b;
    });
    for (int64_t i = 0; i < k; ++i) {
      const int64_t at = (lane / inner * k + i) * inner + lane % inner;
      out[0].data[at] = x[order[i] * inner];
      out[1].data[at] = static_cast<double>(order[i]);
    }
  }
  return {};
}

OpDef top_k_op() {
  return {
      .name = "top_k",
      .doc =
          "The k largest (or smallest) elements along an axis, sorted; of equal ones the lower index comes first, NaN "
          "counts as the largest.",
      .inputs = std::vector<OperandSpec>{{"x", "numbers, rank >= 1"}},
      .outputs =
          std::vector<OperandSpec>{{"values", "x's shape with k on the axis"}, {"indices", "i64, where they stood"}},
      .attrs = {{"k", AttrKind::kInt, {}, "how many"},
                {"axis", AttrKind::kInt, int64_t{-1}, "the axis to search, negative from the end"},
                {"largest", AttrKind::kBool, true, "largest first, else smallest first"}},
      .infer = [](const OpContext& c) -> TypesOrError {
        DS_ASSIGN(int64_t axis, normalize_axis(c.integer("axis"), c.in(0).rank()));
        TensorType values = c.in(0);
        if (values.dtype == DType::kBool)
          return invalid("expected numbers, got {}; cast them first", to_string(values));
        if (c.integer("k") < 0 || c.integer("k") > values.dims[axis])
          return invalid("expected k in [0, {}] on axis {} of {}, got {}", values.dims[axis], axis, to_string(values),
                         c.integer("k"));
        values.dims[axis] = c.integer("k");
        return std::vector<TensorType>{values, values.with_dtype(DType::kI64)};
      },
      .gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
        const int64_t axis = *normalize_axis(g.node.integer("axis"), g.node.in(0).rank());
        return {g.builder.op("put_along_axis_add", {g.output_grads[0], g.outputs[1]},
                             {{"axis", axis}, {"dim_size", g.inputs[0].dim(axis)}})};
      }),
      .reference = Reference::kernel(top_k_reference),
      .samples = std::vector<Sample>{{"last", {f32({4, 9})}, {{"k", int64_t{3}}}},
                                     {"none", {f32({4, 9})}, {{"k", int64_t{0}}}},
                                     {"all_smallest", {f32({3, 5})}, {{"k", int64_t{5}}, {"largest", false}}},
                                     {"middle", {f32({2, 7, 3})}, {{"k", int64_t{2}}, {"axis", int64_t{1}}}}}};
}

OpDef cumsum_op() {
  return {.name = "cumsum",
          .doc = "Running sum along an axis, the element itself included; of integers and bools in i64.",
          .inputs = std::vector<OperandSpec>{{"x", "rank >= 1"}},
          .outputs = std::vector<OperandSpec>{{"y", "x's shape"}},
          .attrs = {{"axis", AttrKind::kInt, int64_t{-1}, "the axis to sum along, negative from the end"}},
          .infer = [](const OpContext& c) -> TypesOrError {
            DS_TRY(normalize_axis(c.integer("axis"), c.in(0).rank()).status());
            return std::vector<TensorType>{is_float(c.in(0).dtype) ? c.in(0) : c.in(0).with_dtype(DType::kI64)};
          },
          .gradient = Gradient::rule([](GradContext& g) -> std::vector<Expr> {
            Expr back = g.builder.op("flip", {g.output_grads[0]}, *g.node.attrs);
            return {g.builder.op("flip", {g.builder.op("cumsum", {back}, *g.node.attrs)}, *g.node.attrs)};
          }),
          .reference = Reference::kernel(
              [](const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
                const int64_t axis = *normalize_axis(c.integer("axis"), c.in(0).rank());
                const int64_t n = in[0].dims[axis], inner = product(std::span(in[0].dims).subspan(axis + 1));
                for (int64_t i = 0; i < static_cast<int64_t>(in[0].data.size()); ++i)
                  out[0].data[i] = in[0].data[i] + (i / inner % n == 0 ? 0 : out[0].data[i - inner]);
                return {};
              }),
          .samples = std::vector<Sample>{{"last", {f32({4, 9})}},
                                         {"first", {f32({6, 3})}, {{"axis", int64_t{0}}}},
                                         {"middle", {f32({2, 5, 3})}, {{"axis", int64_t{1}}}},
                                         {"integers", {indices({3, 4}, 10)}, {}, false},
                                         {"bytes", {{{DType::kU8, {3, 5}}, Fill::kIndices, 250}}, {}, false},
                                         {"nothing", {f32({3, 0})}, {}, false}}};
}

}  // namespace

Status register_index(OpRegistry& registry) {
  DS_TRY(add_all(registry, gather_ops()));
  DS_TRY(add_all(registry, along_axis_ops()));
  std::vector<OpDef> defs;
  defs.push_back(embedding_op());
  defs.push_back(one_hot_op());
  defs.push_back(top_k_op());
  defs.push_back(cumsum_op());
  return add_all(registry, std::move(defs));
}

}  // namespace deepseek::ops
