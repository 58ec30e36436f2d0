#include "ops/window.h"

namespace deepseek::ops {
namespace {

Result<Dims> per_axis(const char* name, const Dims& given, size_t rank, int64_t least, const Dims& fallback) {
  if (given.empty()) return fallback;
  if (given.size() != rank || *std::min_element(given.begin(), given.end()) < least)
    return invalid("expected {} to be {} integers >= {}, one per spatial axis, got {}", name, rank, least,
                   to_string(given));
  return given;
}

}  // namespace

Result<Dims> Window::output_dims(const Dims& input, bool ceil_mode) const {
  Dims out;
  for (size_t i = 0; i < input.size(); ++i) {
    const int64_t room = input[i] + padding_low[i] + padding_high[i] - extent(i);
    if (room < 0)
      return invalid(
          "the kernel does not fit: spatial axis {} has {} elements with padding ({} + {} + {}), the kernel "
          "spans {} (size {}, dilation {})",
          i, room + extent(i), padding_low[i], input[i], padding_high[i], extent(i), kernel[i], dilation[i]);
    int64_t n = (room + (ceil_mode ? stride[i] - 1 : 0)) / stride[i] + 1;
    if (ceil_mode && (n - 1) * stride[i] >= input[i] + padding_low[i]) --n;
    out.push_back(n);
  }
  return out;
}

Result<Window> read_window(const OpContext& c, Dims kernel, EmptyStride empty_stride) {
  const size_t rank = kernel.size();
  const Dims ones(rank, 1), zeros(rank, 0);
  Window w;
  if (rank > 0 && *std::min_element(kernel.begin(), kernel.end()) < 1)
    return invalid("expected kernel sizes >= 1, got {}", to_string(kernel));
  DS_ASSIGN(w.stride,
            per_axis("stride", c.ints("stride"), rank, 1, empty_stride == EmptyStride::kOnes ? ones : kernel));
  DS_ASSIGN(w.padding_low, per_axis("padding_low", c.ints("padding_low"), rank, 0, zeros));
  DS_ASSIGN(w.padding_high, per_axis("padding_high", c.ints("padding_high"), rank, 0, zeros));
  w.dilation = ones;
  if (c.attrs->find("dilation") != nullptr) {
    DS_ASSIGN(w.dilation, per_axis("dilation", c.ints("dilation"), rank, 1, ones));
  }
  w.kernel = std::move(kernel);
  return w;
}

Result<Dims> spatial_dims(const Dims& x) {
  if (x.size() < 3 || x.size() > 5)
    return invalid(
        "expected [N, C, spatial...] with 1 to 3 spatial axes, got {}; add a batch axis with reshape if it is "
        "missing",
        to_string(x));
  if (*std::min_element(x.begin(), x.end()) < 0) return invalid("expected sizes >= 0, got {}", to_string(x));
  return Dims(x.begin() + 2, x.end());
}

std::vector<AttrSpec> window_attrs(EmptyStride empty_stride, bool dilation) {
  std::vector<AttrSpec> attrs = {
      {"stride", AttrKind::kInts, Dims{},
       std::string("distance of windows per spatial axis; empty means ") +
           (empty_stride == EmptyStride::kOnes ? "ones" : "the kernel's size")},
      {"padding_low", AttrKind::kInts, Dims{}, "elements added before each spatial axis; empty means none"},
      {"padding_high", AttrKind::kInts, Dims{}, "elements added after each spatial axis; empty means none"}};
  if (dilation)
    attrs.push_back(
        {"dilation", AttrKind::kInts, Dims{}, "distance of kernel elements per spatial axis; empty means ones"});
  return attrs;
}

}  // namespace deepseek::ops
