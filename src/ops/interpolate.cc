// Resizing of spatial axes. Index formulas are those of torch.nn.functional.interpolate with size=, computed in float.
#include <algorithm>
#include <cmath>

#include "ops/common.h"

namespace deepseek::ops {
namespace {

TypesOrError infer_interpolate(const OpContext& c) {
  const TensorType& x = c.in(0);
  const Dims& size = c.ints("size");
  if (x.rank() < 3 || x.rank() > 5 || !is_float(x.dtype))
    return invalid("expected float [N,C,spatial...] with 1 to 3 spatial axes, got {}", to_string(x));
  if (static_cast<int64_t>(size.size()) != x.rank() - 2)
    return invalid("expected {} sizes, one per spatial axis of {}, got {}", x.rank() - 2, to_string(x),
                   to_string(size));
  const std::string& mode = c.text("mode");
  if (mode != "nearest" && mode != "linear")
    return invalid("mode: expected \"nearest\" or \"linear\", got \"{}\"", mode);
  if (mode == "nearest" && c.flag("align_corners"))
    return invalid("align_corners asks for mode \"linear\", got \"nearest\"");
  TensorType y = x;
  for (size_t i = 0; i < size.size(); ++i) {
    if (size[i] < 1 || x.dims[i + 2] < 1)
      return invalid("expected sizes >= 1, got {} for {}", to_string(size), to_string(x));
    y.dims[i + 2] = size[i];
  }
  return std::vector<TensorType>{y};
}

Expr take(Expr x, int64_t axis, const std::vector<int64_t>& index) {
  Builder& b = x.builder();
  const Dims dims{static_cast<int64_t>(index.size())};
  return b.op("gather", {x, b.constant(graph::Tensor::from<int64_t>(DType::kI64, dims, index))}, {{"axis", axis}});
}

Expr resize_nearest(Expr x, int64_t axis, int64_t out) {
  const int64_t in = x.dim(axis);
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  std::vector<int64_t> index;
  for (int64_t i = 0; i < out; ++i)
    index.push_back(std::min(static_cast<int64_t>(std::floor(static_cast<float>(i) * scale)), in - 1));
  return take(x, axis, index);
}

Expr resize_linear(Expr x, int64_t axis, int64_t out, bool align_corners) {
  const int64_t in = x.dim(axis);
  const float scale = !align_corners ? static_cast<float>(in) / static_cast<float>(out)
                      : out > 1      ? static_cast<float>(in - 1) / static_cast<float>(out - 1)
                                     : 0.0F;
  std::vector<int64_t> low, high;
  std::vector<double> weight;
  for (int64_t i = 0; i < out; ++i) {
    const float position = static_cast<float>(i);
    const float source = align_corners ? position * scale : std::max((position + 0.5F) * scale - 0.5F, 0.0F);
    low.push_back(std::min(static_cast<int64_t>(source), in - 1));
    high.push_back(std::min(low.back() + 1, in - 1));
    weight.push_back(std::clamp(source - static_cast<float>(low.back()), 0.0F, 1.0F));
  }
  Dims dims(static_cast<size_t>(x.rank()), 1);
  dims[axis] = out;
  Expr w = x.builder().constant(graph::Tensor::from<double>(x.dtype(), dims, weight));
  return take(x, axis, low) * (1.0 - w) + take(x, axis, high) * w;
}

}  // namespace

Status register_interpolate(OpRegistry& registry) {
  const auto attrs = [](Dims size, const char* mode, bool align = false) {
    return Attrs{{"size", std::move(size)}, {"mode", std::string(mode)}, {"align_corners", align}};
  };
  return add_all(
      registry,
      {{.name = "interpolate",
        .doc = "Resizes the spatial axes to `size`: the nearest element, or linear on each axis (bilinear, trilinear).",
        .inputs = std::vector<OperandSpec>{{"x", "float [N,C,spatial...], 1 to 3 spatial axes"}},
        .outputs = std::vector<OperandSpec>{{"y", "[N,C,size...]"}},
        .attrs = {{"size", AttrKind::kInts, {}, "the new spatial sizes"},
                  {"mode", AttrKind::kString, std::string("nearest"), "\"nearest\" or \"linear\""},
                  {"align_corners", AttrKind::kBool, false, "linear: the corner elements keep their place"}},
        .infer = infer_interpolate,
        .gradient = Gradient::by_decomposition(),
        .reference = Reference::by_decomposition(),
        .decompose = [](Builder&, const OpContext& c, std::span<const Expr> in) -> std::vector<Expr> {
          Expr y = in[0];
          for (int64_t i = 2; i < in[0].rank(); ++i) {
            const int64_t out = c.ints("size")[i - 2];
            if (out == in[0].dim(i)) continue;  // both modes keep an axis of the same size as it is
            y = c.text("mode") == "nearest" ? resize_nearest(y, i, out)
                                            : resize_linear(y, i, out, c.flag("align_corners"));
          }
          return {y};
        },
        .precision = Precision::kFollow,
        .samples = std::vector<Sample>{{"nearest_up", {f32({2, 3, 4, 5})}, attrs({8, 10}, "nearest")},
                                       {"nearest_down", {f32({1, 2, 7, 9})}, attrs({3, 4}, "nearest")},
                                       {"linear_1d", {f32({2, 3, 5})}, attrs({8}, "linear")},
                                       {"bilinear_up", {f32({2, 3, 4, 5})}, attrs({7, 10}, "linear")},
                                       {"bilinear_down", {f32({1, 2, 9, 7})}, attrs({4, 3}, "linear")},
                                       {"align_corners", {f32({1, 2, 4, 5})}, attrs({7, 9}, "linear", true)},
                                       {"trilinear", {f32({1, 2, 2, 3, 4})}, attrs({4, 5, 3}, "linear")}}}});
}

}  // namespace deepseek::ops
