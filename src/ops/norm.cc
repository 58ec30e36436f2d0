// Normalisation: batch, layer, group, instance and RMS. scale, bias and statistics may have a wider dtype than x (bf16
// data with f32 parameters), so that mixed precision needs no casts around these ops.
#include <algorithm>
#include <cmath>

#include "ops/common.h"

namespace deepseek::ops {
namespace {

// Which elements share statistics and which share parameters, for every norm here. x is seen as
// [outer, channels, inner] around the parameters' axis, in statistics sets of equal size.
struct NormShape {
  Dims stat_dims;              // shape of mean and rstd
  Dims stat_shape, par_shape;  // statistics and parameters reshaped to broadcast against `view`
  Dims view;                   // x reshaped

  // Also where there are no sets.
  int64_t set_size() const {
    int64_t n = 1;
    for (size_t i = 0; i < view.size(); ++i)
      if (stat_shape[i] == 1) n *= view[i];
    return n;
  }
};

// With blocked channels ([N, C/b, ..., b]) a channel is a pair of indices; its number is the same.
NormShape batch_shape(const Dims& x, int64_t block) {
  const int64_t b = std::max<int64_t>(block, 1);
  const Dims per_channel = {1, x[1], 1, b};
  return {{x[1] * b}, per_channel, per_channel, {x[0], x[1], product(std::span(x).subspan(2)) / b, b}};
}

// Number of channels of a batch norm's x.
int64_t batch_channels(const OpContext& c, size_t x) {
  return c.in(x).dims[1] * std::max<int64_t>(c.integer("channel_block"), 1);
}

Status check_channel_block(const OpContext& c, size_t x) {
  const int64_t block = c.integer("channel_block");
  if (block == 0) return {};
  if (block < 0 || c.in(x).rank() < 3 || c.in(x).dims.back() != block)
    return invalid("expected channel_block 0 or the last axis' size of x [N, C/b, ..., b], got {} and {}", block,
                   to_string(c.in(x)));
  return {};
}

NormShape layer_shape(const Dims& x, int64_t axes_count) {
  const size_t lead = x.size() - static_cast<size_t>(axes_count);
  const Dims outer(x.begin(), x.begin() + static_cast<int64_t>(lead));
  const int64_t rows = product(outer), n = product(std::span(x).subspan(lead));
  return {outer, {rows, 1}, {1, n}, {rows, n}};
}

NormShape group_shape(const Dims& x, int64_t groups) {
  const int64_t per = x[1] / groups;
  return {
      {x[0], groups}, {x[0], groups, 1, 1}, {1, groups, per, 1}, {x[0], groups, per, product(std::span(x).subspan(2))}};
}

// Input `i` of `c` must be a float of the given dims, and of scale's dtype where `like` names it.
Status check_operand(const OpContext& c, size_t i, const Dims& dims, size_t like) {
  const std::string& name = c.op->inputs.value[i].name;
  if (c.in(i).dims != dims)
    return invalid("expected {} of the shape {} for x {}, got {}", name, to_string(dims), to_string(c.in(0)),
                   to_string(c.in(i)));
  if (c.in(i).dtype != c.in(like).dtype || !is_float(c.in(i).dtype))
    return invalid("expected {} of a float dtype, that of {}, got {} and {}", name, c.op->inputs.value[like].name,
                   to_string(c.in(i)), to_string(c.in(like)));
  return {};
}

Status check_epsilon(const OpContext& c) {
  if (!(c.number("epsilon") >= 0)) return invalid("expected epsilon >= 0, got {}", c.number("epsilon"));
  return {};
}

Status check_channels(const OpContext& c, size_t x) {
  if (c.in(x).rank() < 2 || !is_float(c.in(x).dtype))
    return invalid("expected x to be a float [N, C, ...], got {}", to_string(c.in(x)));
  return {};
}

// Shape of the op's x (input `x`), after checking what the family's attributes say of it.
Result<NormShape> norm_shape(const OpContext& c, size_t x) {
  const TensorType& t = c.in(x);
  if (c.attrs->find("axes_count") != nullptr) {
    const int64_t n = c.integer("axes_count");
    if (!is_float(t.dtype) || n < 1 || n > t.rank())
      return invalid("expected axes_count in [1, {}] and a float x, got {} and {}", t.rank(), n, to_string(t));
    return layer_shape(t.dims, n);
  }
  DS_TRY(check_channels(c, x));
  if (c.attrs->find("groups") != nullptr) {
    const int64_t groups = c.integer("groups");
    if (groups < 1 || t.dims[1] % groups != 0)
      return invalid("expected groups to divide the {} channels of {}, got {}", t.dims[1], to_string(t), groups);
    return group_shape(t.dims, groups);
  }
  DS_TRY(check_channel_block(c, x));
  return batch_shape(t.dims, c.integer("channel_block"));
}

// Dims of scale and bias.
Dims parameter_dims(const OpContext& c, size_t x) {
  const Dims& d = c.in(x).dims;
  if (c.attrs->find("axes_count") != nullptr) return Dims(d.end() - c.integer("axes_count"), d.end());
  if (c.attrs->find("channel_block") != nullptr) return {batch_channels(c, x)};
  return {d[1]};
}

TypesOrError infer_norm(const OpContext& c) {
  DS_ASSIGN(NormShape s, norm_shape(c, 0));
  DS_TRY(check_epsilon(c));
  if (s.set_size() == 0) return invalid("expected at least one element per statistic, got {}", to_string(c.in(0)));
  for (size_t i : {1, 2}) DS_TRY(check_operand(c, i, parameter_dims(c, 0), 1));
  const TensorType stat{c.in(1).dtype, s.stat_dims};
  return std::vector<TensorType>{c.in(0), stat, stat};
}

TypesOrError infer_batch_norm(const OpContext& c) {
  DS_ASSIGN(std::vector<TensorType> types, infer_norm(c));
  for (size_t i : {3, 4}) DS_TRY(check_operand(c, i, {batch_channels(c, 0)}, 1));
  if (norm_shape(c, 0)->set_size() < 2)
    return invalid(
        "expected more than one element per channel to train on, got {}; use a larger batch, leave out a smaller last one (train.drop_last), or batch_norm_inference",
        to_string(c.in(0)));
  types.push_back(c.in(3));
  types.push_back(c.in(4));
  return types;
}

// dy, x, scale, mean, rstd -> dx, dscale, dbias
TypesOrError infer_norm_grad(const OpContext& c) {
  DS_ASSIGN(NormShape s, norm_shape(c, 1));
  if (c.in(0) != c.in(1)) return invalid("expected dy of x's type {}, got {}", to_string(c.in(1)), to_string(c.in(0)));
  DS_TRY(check_operand(c, 2, parameter_dims(c, 1), 2));
  for (size_t i : {3, 4}) DS_TRY(check_operand(c, i, s.stat_dims, 2));
  return std::vector<TensorType>{c.in(1), c.in(2), c.in(2)};
}

// Calls visit(element, statistic, parameter) for all of x.
template <class Visit>
void for_each_element(const NormShape& s, Visit visit) {
  Dims index(s.view.size());
  for (int64_t i = 0; i < product(s.view); ++i, next_index(index, s.view))
    visit(i, broadcast_offset(index, s.stat_shape), broadcast_offset(index, s.par_shape));
}

Status norm_reference(const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) {
  DS_ASSIGN(NormShape s, norm_shape(c, 0));
  const double n = static_cast<double>(s.set_size());
  const std::vector<double>&x = in[0].data, &scale = in[1].data, &bias = in[2].data;
  std::vector<double>&mean = out[1].data, &rstd = out[2].data, var(mean.size());
  std::fill(mean.begin(), mean.end(), 0.0);
  for_each_element(s, [&](int64_t i, int64_t t, int64_t) { mean[t] += x[i] / n; });
  for_each_element(s, [&](int64_t i, int64_t t, int64_t) { var[t] += (x[i] - mean[t]) * (x[i] - mean[t]) / n; });
  for (size_t t = 0; t < var.size(); ++t) rstd[t] = 1 / std::sqrt(var[t] + c.number("epsilon"));
  for_each_element(
      s, [&](int64_t i, int64_t t, int64_t p) { out[0].data[i] = (x[i] - mean[t]) * rstd[t] * scale[p] + bias[p]; });
  if (out.size() == 3) return {};
  const double m = c.number("momentum");  // batch_norm: the running statistics
  for (size_t t = 0; t < var.size(); ++t) {
    out[3].data[t] = (1 - m) * in[3].data[t] + m * mean[t];
    out[4].data[t] = (1 - m) * in[4].data[t] + m * var[t] * n / (n - 1);
  }
  return {};
}

// With xhat = (x - mean) * rstd and g = dy * scale: dx = rstd * (g - mean(g) - xhat * mean(g * xhat)), means over the
// elements that share the statistic.
Status norm_grad_reference(const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) {
  DS_ASSIGN(NormShape s, norm_shape(c, 1));
  const double n = static_cast<double>(s.set_size());
  const std::vector<double>&dy = in[0].data, &x = in[1].data, &scale = in[2].data, &mean = in[3].data,
        &rstd = in[4].data;
  std::vector<double> g(mean.size()), gx(mean.size()), &dscale = out[1].data, &dbias = out[2].data;
  std::fill(dscale.begin(), dscale.end(), 0.0);
  std::fill(dbias.begin(), dbias.end(), 0.0);
  const auto xhat = [&](int64_t i, int64_t t) { return (x[i] - mean[t]) * rstd[t]; };
  for_each_element(s, [&](int64_t i, int64_t t, int64_t p) {
    g[t] += dy[i] * scale[p] / n;
    gx[t] += dy[i] * scale[p] * xhat(i, t) / n;
    dscale[p] += dy[i] * xhat(i, t);
    dbias[p] += dy[i];
  });
  for_each_element(s, [&](int64_t i, int64_t t, int64_t p) {
    out[0].data[i] = rstd[t] * (dy[i] * scale[p] - g[t] - xhat(i, t) * gx[t]);
  });
  return {};
}

// Adds what flows back into the mean and rstd outputs: dmean / n - drstd * rstd^3 * (x - mean) / n per element.
Expr statistics_gradient(GradContext& g, const NormShape& s, Expr dmean, Expr drstd) {
  const DType wide = g.outputs[1].dtype();
  const double n = static_cast<double>(s.set_size());
  Expr total;
  if (dmean.defined()) total = broadcast_to(reshape(dmean, s.stat_shape) / n, s.view);
  if (drstd.defined()) {
    Expr r = g.outputs[2];
    Expr factor = reshape(drstd * r * r * r, s.stat_shape) / -n;
    Expr part = factor * (reshape(cast(g.inputs[0], wide), s.view) - reshape(g.outputs[1], s.stat_shape));
    total = total.defined() ? total + part : part;
  }
  return cast(reshape(total, g.inputs[0].dims()), g.inputs[0].dtype());
}

// Gradient of batch_norm, layer_norm and group_norm; `grad_op` takes the part of y.
std::vector<Expr> norm_gradient(GradContext& g, const char* grad_op, std::vector<const char*> kept_attrs) {
  std::vector<Expr> grads(g.inputs.size());
  if (g.output_grads[0].defined()) {
    Attrs attrs;
    for (const char* name : kept_attrs) attrs.set(name, *g.node.attrs->find(name));
    std::vector<Expr> parts = g.builder.emit(
        grad_op, {g.output_grads[0], g.inputs[0], g.inputs[1], g.outputs[1], g.outputs[2]}, std::move(attrs));
    std::copy(parts.begin(), parts.end(), grads.begin());
  }
  Expr dmean = g.output_grads[1], drstd = g.output_grads[2];
  const NormShape s = *norm_shape(g.node, 0);
  const auto accumulate = [](Expr& into, Expr part) { into = into.defined() ? into + part : part; };
  if (g.outputs.size() == 5) {
    const double m = g.node.number("momentum"), n = static_cast<double>(s.set_size());
    if (Expr d = g.output_grads[3]; d.defined()) {
      grads[3] = d * (1 - m);
      accumulate(dmean, d * m);
    }
    if (Expr d = g.output_grads[4]; d.defined()) {
      // var = rstd^-2 - epsilon, so dvar = -2 rstd^-3 drstd.
      Expr r = g.outputs[2];
      grads[4] = d * (1 - m);
      accumulate(drstd, d * (-2 * m * n / (n - 1)) / (r * r * r));
    }
  }
  if (g.needs[0] && (dmean.defined() || drstd.defined())) accumulate(grads[0], statistics_gradient(g, s, dmean, drstd));
  return grads;
}

// [C] as [1, C, 1, ...] for a tensor of x's rank, or [1, C/b, 1, ..., b].
Expr per_channel(Expr v, Expr x, int64_t block = 0) {
  Dims dims(static_cast<size_t>(x.rank()), 1);
  if (dims.size() > 1) dims[1] = x.dim(1);
  if (block > 0) dims.back() = block;
  return reshape(v, dims);
}

// (x - mean) * rstd * scale + bias, by the statistics that the node has given.
Expr normalize_again(const OpContext& c, std::span<const Expr> in, std::span<const Expr> out) {
  Expr x = cast(in[0], in[1].dtype()), scale = in[1], bias = in[2], mean = out[1], rstd = out[2];
  if (c.attrs->find("channel_block") != nullptr) {
    const int64_t block = c.integer("channel_block");
    // Named, since in which order a product's sides are made is the compiler's choice.
    const Expr shift = per_channel(bias, x, block), gain = per_channel(scale * rstd, x, block);
    Expr y = (x - per_channel(mean, x, block)) * gain + shift;
    return cast(y, in[0].dtype());
  }
  const NormShape s = *norm_shape(c, 0);
  Expr y = (reshape(x, s.view) - reshape(mean, s.stat_shape)) * reshape(rstd, s.stat_shape);
  y = y * reshape(scale, s.par_shape) + reshape(bias, s.par_shape);
  return cast(reshape(y, in[0].dims()), in[0].dtype());
}

std::vector<OperandSpec> affine_inputs(const char* x, const char* parameters) {
  return {
      {"x", x}, {"scale", std::string("float ") + parameters}, {"bias", std::string("scale's type, ") + parameters}};
}

std::vector<OperandSpec> grad_inputs() {
  return {{"dy", "x's type"},
          {"x", "the forward op's x"},
          {"scale", "its scale"},
          {"mean", "its mean output"},
          {"rstd", "its rstd output"}};
}

std::vector<OperandSpec> grad_outputs() {
  return {{"dx", "x's type"}, {"dscale", "scale's type"}, {"dbias", "scale's type"}};
}

std::vector<OperandSpec> norm_outputs(const char* dims) {
  return {{"y", "x's type"},
          {"mean", std::string("scale's dtype, ") + dims},
          {"rstd", std::string("1 / sqrt(variance + epsilon), ") + dims}};
}

AttrSpec epsilon_attr() { return {"epsilon", AttrKind::kFloat, 1e-5, "added to the variance"}; }
AttrSpec axes_attr() { return {"axes_count", AttrKind::kInt, int64_t{1}, "number of trailing axes to normalise over"}; }
AttrSpec channel_block_attr() {
  return {"channel_block", AttrKind::kInt, int64_t{0}, "b > 0: x is [N, C/b, ..., b], with blocked channels"};
}
AttrSpec groups_attr() { return {"groups", AttrKind::kInt, {}, "sets of channels, normalised each on its own"}; }

OpDef grad_op(const char* name, const char* forward, std::vector<AttrSpec> attrs, std::vector<Sample> samples) {
  for (Sample& s : samples) s.check_gradient = false;
  return {.name = name,
          .doc = fmt::format("Gradient of {} for x, scale and bias, from its saved statistics.", forward),
          .inputs = grad_inputs(),
          .outputs = grad_outputs(),
          .attrs = std::move(attrs),
          .infer = infer_norm_grad,
          .gradient = Gradient::non_differentiable("second derivatives are not supported"),
          .reference = Reference::kernel(norm_grad_reference),
          .samples = std::move(samples)};
}

Sample batch_sample(const char* name, Dims x, Attrs attrs = {}) {
  const graph::AttrValue* block = attrs.find("channel_block");
  const Dims c = {x[1] * (block == nullptr ? 1 : attrs.integer("channel_block"))};
  return {name, {f32(x), f32(c), f32(c), f32(c), f32(c, Fill::kPositive)}, std::move(attrs)};
}

Sample grad_sample(const char* name, Dims x, Dims scale, Dims stat, Attrs attrs = {}) {
  return {name, {f32(x), f32(x), f32(scale), f32(stat), f32(stat, Fill::kPositive)}, std::move(attrs)};
}

std::vector<OpDef> batch_ops() {
  std::vector<OpDef> defs;
  std::vector<OperandSpec> inputs = affine_inputs("float [N, C, ...]", "[C]");
  std::vector<OperandSpec> running = inputs;
  running.push_back({"running_mean", "scale's type, [C]"});
  running.push_back({"running_var", "scale's type, [C]"});
  inputs.push_back({"mean", "scale's type, [C]"});
  inputs.push_back({"var", "scale's type, [C]"});
  defs.push_back(
      {.name = "batch_norm",
       .doc = "Batch normalisation as trained (Ioffe & Szegedy 2015): statistics per channel over the batch, and the "
              "running ones for inference: (1 - momentum) * running + momentum * batch, with the unbiased variance.",
       .inputs = running,
       .outputs = std::vector<OperandSpec>{{"y", "x's type"},
                                           {"batch_mean", "[C]"},
                                           {"batch_rstd", "1 / sqrt(biased variance + epsilon), [C]"},
                                           {"new_running_mean", "[C]"},
                                           {"new_running_var", "[C]"}},
       .attrs = {{"momentum", AttrKind::kFloat, 0.1, "weight of the batch in the running statistics"},
                 epsilon_attr(),
                 channel_block_attr()},
       .infer = infer_batch_norm,
       .gradient =
           Gradient::rule([](GradContext& g) { return norm_gradient(g, "batch_norm_grad", {"channel_block"}); }),
       .reference = Reference::kernel(norm_reference),
       .rematerialize = graph::Rematerialize{{0, 1, 2}, {1, 2}, normalize_again},
       .precision = Precision::kFollowFirst,
       .samples = std::vector<Sample>{batch_sample("2d", {4, 3, 5, 5}), batch_sample("dense", {6, 5}),
                                      batch_sample("1d", {3, 4, 7}, {{"momentum", 0.3}, {"epsilon", 1e-3}}),
                                      batch_sample("3d", {2, 3, 2, 3, 4}), batch_sample("wide", {2, 37, 3, 3}),
                                      batch_sample("blocked", {2, 2, 3, 5, 16}, {{"channel_block", int64_t{16}}}),
                                      batch_sample("blocked_1d", {2, 3, 2, 32}, {{"channel_block", int64_t{32}}})}});
  defs.push_back(grad_op("batch_norm_grad", "batch_norm", {channel_block_attr()},
                         {grad_sample("2d", {4, 3, 5, 5}, {3}, {3}), grad_sample("dense", {6, 5}, {5}, {5}),
                          grad_sample("3d", {2, 3, 2, 3, 4}, {3}, {3}),
                          grad_sample("blocked", {2, 2, 3, 5, 16}, {32}, {32}, {{"channel_block", int64_t{16}}}),
                          grad_sample("blocked_1d", {2, 3, 2, 32}, {96}, {96}, {{"channel_block", int64_t{32}}})}));
  defs.push_back(
      {.name = "batch_norm_inference",
       .doc = "Batch normalisation by given statistics: (x - mean) / sqrt(var + epsilon) * scale + bias.",
       .inputs = inputs,
       .outputs = std::vector<OperandSpec>{{"y", "x's type"}},
       .attrs = {epsilon_attr(), channel_block_attr()},
       .infer = [](const OpContext& c) -> TypesOrError {
         DS_TRY(check_channels(c, 0));
         DS_TRY(check_epsilon(c));
         DS_TRY(check_channel_block(c, 0));
         for (size_t i : {1, 2, 3, 4}) DS_TRY(check_operand(c, i, {batch_channels(c, 0)}, 1));
         return same_as_input(c);
       },
       .gradient = Gradient::by_decomposition(),
       .reference =
           Reference::kernel([](const OpContext& c, std::span<const RefTensor> in, std::span<RefTensor> out) -> Status {
             DS_ASSIGN(NormShape s, norm_shape(c, 0));
             for_each_element(s, [&](int64_t i, int64_t t, int64_t p) {
               const double rstd = 1 / std::sqrt(in[4].data[t] + c.number("epsilon"));
               out[0].data[i] = (in[0].data[i] - in[3].data[t]) * rstd * in[1].data[p] + in[2].data[p];
             });
             return {};
           }),
       .decompose = [](Builder&, const OpContext& c, std::span<const Expr> in) -> std::vector<Expr> {
         Expr x = cast(in[0], in[1].dtype());
         Expr factor = in[1] * rsqrt(in[4] + c.number("epsilon"));
         const int64_t block = c.integer("channel_block");
         Expr y = x * per_channel(factor, x, block) + per_channel(in[2] - in[3] * factor, x, block);
         return {cast(y, in[0].dtype())};
       },
       .precision = Precision::kFollowFirst,
       .samples =
           std::vector<Sample>{batch_sample("2d", {4, 3, 5, 5}), batch_sample("dense", {6, 5}),
                               batch_sample("1d", {1, 4, 7}, {{"epsilon", 1e-3}}), batch_sample("no_batch", {0, 3, 5}),
                               batch_sample("blocked", {1, 2, 3, 16}, {{"channel_block", int64_t{16}}})}});
  return defs;
}

std::vector<OpDef> layer_ops() {
  const auto axes = [](int64_t n) { return Attrs{{"axes_count", n}}; };
  std::vector<OpDef> defs;
  defs.push_back(
      {.name = "layer_norm",
       .doc = "Layer normalisation (Ba et al. 2016) over the last axes_count axes.",
       .inputs = affine_inputs("float, rank >= axes_count", "the normalised axes' shape"),
       .outputs = norm_outputs("x's shape without the normalised axes"),
       .attrs = {axes_attr(), epsilon_attr()},
       .infer = infer_norm,
       .gradient = Gradient::rule([](GradContext& g) { return norm_gradient(g, "layer_norm_grad", {"axes_count"}); }),
       .reference = Reference::kernel(norm_reference),
       .rematerialize = graph::Rematerialize{{0, 1, 2}, {1, 2}, normalize_again},
       .precision = Precision::kFollowFirst,
       .samples = std::vector<Sample>{{"tokens", {f32({2, 5, 16}), f32({16}), f32({16})}},
                                      {"no_tokens", {f32({2, 0, 16}), f32({16}), f32({16})}},
                                      {"odd", {f32({3, 37}), f32({37}), f32({37})}, {{"epsilon", 1e-3}}},
                                      {"two_axes", {f32({2, 3, 4, 5}), f32({4, 5}), f32({4, 5})}, axes(2)},
                                      {"all_axes", {f32({4, 6}), f32({4, 6}), f32({4, 6})}, axes(2)}}});
  defs.push_back(grad_op("layer_norm_grad", "layer_norm", {axes_attr()},
                         {grad_sample("tokens", {2, 5, 16}, {16}, {2, 5}), grad_sample("odd", {3, 37}, {37}, {3}),
                          grad_sample("two_axes", {2, 3, 4, 5}, {4, 5}, {2, 3}, axes(2))}));
  defs.push_back({.name = "rms_norm",
                  .doc = "x / sqrt(mean(x^2) + epsilon) * scale over the last axes_count axes (Zhang & Sennrich 2019).",
                  .inputs = std::vector<OperandSpec>{{"x", "float, rank >= axes_count"},
                                                     {"scale", "float, the normalised axes' shape"}},
                  .outputs = std::vector<OperandSpec>{{"y", "x's type"}},
                  .attrs = {axes_attr(), epsilon_attr()},
                  .infer = [](const OpContext& c) -> TypesOrError {
                    DS_ASSIGN(NormShape s, norm_shape(c, 0));
                    DS_TRY(check_epsilon(c));
                    if (s.set_size() == 0)
                      return invalid("expected at least one element per statistic, got {}", to_string(c.in(0)));
                    DS_TRY(check_operand(c, 1, parameter_dims(c, 0), 1));
                    return same_as_input(c);
                  },
                  .gradient = Gradient::by_decomposition(),
                  .reference = Reference::by_decomposition(),
                  .decompose = [](Builder&, const OpContext& c, std::span<const Expr> in) -> std::vector<Expr> {
                    const DType wide = wide_dtype(in[1].dtype());  // squares leave a half float's range
                    Expr x = cast(in[0], wide);
                    Dims axes;
                    for (int64_t i = -c.integer("axes_count"); i < 0; ++i) axes.push_back(i);
                    Expr y = x * rsqrt(mean(square(x), axes, true) + c.number("epsilon")) * cast(in[1], wide);
                    return {cast(y, in[0].dtype())};
                  },
                  .precision = Precision::kFollowFirst,
                  .samples = std::vector<Sample>{{"tokens", {f32({2, 5, 16}), f32({16})}},
                                                 {"no_tokens", {f32({2, 0, 16}), f32({16})}},
                                                 {"odd", {f32({3, 37}), f32({37})}, {{"epsilon", 1e-3}}},
                                                 {"two_axes", {f32({2, 3, 4, 5}), f32({4, 5})}, axes(2)}}});
  return defs;
}

std::vector<OpDef> group_ops() {
  const auto groups = [](int64_t n) { return Attrs{{"groups", n}}; };
  std::vector<OpDef> defs;
  defs.push_back(
      {.name = "group_norm",
       .doc = "Group normalisation (Wu & He 2018): per sample, over each set of C / groups channels and all positions.",
       .inputs = affine_inputs("float [N, C, ...]", "[C]"),
       .outputs = norm_outputs("[N, groups]"),
       .attrs = {groups_attr(), epsilon_attr()},
       .infer = infer_norm,
       .gradient = Gradient::rule([](GradContext& g) { return norm_gradient(g, "group_norm_grad", {"groups"}); }),
       .reference = Reference::kernel(norm_reference),
       .rematerialize = graph::Rematerialize{{0, 1, 2}, {1, 2}, normalize_again},
       .precision = Precision::kFollowFirst,
       .samples = std::vector<Sample>{
           {"2d", {f32({2, 6, 5, 3}), f32({6}), f32({6})}, groups(3)},
           {"one_group", {f32({3, 4, 7}), f32({4}), f32({4})}, groups(1)},
           {"no_batch", {f32({0, 4, 7}), f32({4}), f32({4})}, groups(2)},
           {"dense", {f32({3, 8}), f32({8}), f32({8})}, groups(2)},
           {"3d", {f32({2, 4, 2, 3, 2}), f32({4}), f32({4})}, {{"groups", int64_t{2}}, {"epsilon", 1e-3}}}}});
  defs.push_back(grad_op("group_norm_grad", "group_norm", {groups_attr()},
                         {grad_sample("2d", {2, 6, 5, 3}, {6}, {2, 3}, groups(3)),
                          grad_sample("one_group", {3, 4, 7}, {4}, {3, 1}, groups(1)),
                          grad_sample("dense", {3, 8}, {8}, {3, 2}, groups(2))}));
  defs.push_back({.name = "instance_norm",
                  .doc = "Instance normalisation (Ulyanov et al. 2016): per sample and channel, over all positions.",
                  .inputs = affine_inputs("float [N, C, spatial...]", "[C]"),
                  .outputs = std::vector<OperandSpec>{{"y", "x's type"}},
                  .attrs = {epsilon_attr()},
                  .infer = [](const OpContext& c) -> TypesOrError {
                    DS_TRY(check_channels(c, 0));
                    DS_TRY(check_epsilon(c));
                    if (c.in(0).rank() < 3 || product(std::span(c.in(0).dims).subspan(1)) == 0)
                      return invalid("expected x [N, C, spatial...] with elements in every channel, got {}",
                                     to_string(c.in(0)));
                    for (size_t i : {1, 2}) DS_TRY(check_operand(c, i, parameter_dims(c, 0), 1));
                    return same_as_input(c);
                  },
                  .gradient = Gradient::by_decomposition(),
                  .reference = Reference::by_decomposition(),
                  .decompose = [](Builder& b, const OpContext& c, std::span<const Expr> in) -> std::vector<Expr> {
                    return {b.op("group_norm", {in[0], in[1], in[2]},
                                 {{"groups", c.in(0).dims[1]}, {"epsilon", c.number("epsilon")}})};
                  },
                  .precision = Precision::kFollowFirst,
                  .samples = std::vector<Sample>{{"2d", {f32({2, 3, 5, 4}), f32({3}), f32({3})}},
                                                 {"no_batch", {f32({0, 3, 5}), f32({3}), f32({3})}},
                                                 {"1d", {f32({3, 4, 9}), f32({4}), f32({4})}, {{"epsilon", 1e-3}}}}});
  return defs;
}

}  // namespace

Status register_norm(OpRegistry& registry) {
  DS_TRY(add_all(registry, batch_ops()));
  DS_TRY(add_all(registry, layer_ops()));
  return add_all(registry, group_ops());
}

}  // namespace deepseek::ops
