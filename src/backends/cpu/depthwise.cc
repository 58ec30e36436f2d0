// f32 depthwise convolution on blocked channels, forward and both gradients: a vector holds channels of one pixel, so
// that each tap is one multiply-add. A task is a plane, [spatial..., b] of one image.
#include <array>
#include <cstring>
#include <vector>

#include "backends/cpu/conv_axis.h"
#include "backends/cpu/kernel.h"
#include "base/threads.h"
#include "ops/blocked_conv.h"

#ifndef DEEPSEEK_DEPTHWISE_ONCE
#define DEEPSEEK_DEPTHWISE_ONCE
namespace deepseek::backends::cpu {
// One row each; see their definitions.
struct DepthwiseRows {
  void (*forward)(const float* const* x, const float* const* weights, int64_t rows, const Axis& w, int64_t b, float* y);
  void (*scatter)(const float* dy, const float* weights, const Axis& w, int64_t b, float* dx);
  void (*weights)(const float* x, const float* dy, const Axis& w, int64_t b, float* dw);
};
}  // namespace deepseek::backends::cpu
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/depthwise.cc"
// foreach_target.h must come before what it includes again for each target.
// clang-format off
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace deepseek::backends::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {                          // other files have such functions too
using D = hn::CappedTag<float, 16>;  // at most the 8 of a small block, or the 16 of others

constexpr int64_t kColumns = 4;  // at a time: additions need not wait for each other

// Columns of y where every tap is inside of x.
struct Interior {
  int64_t first, last;
};
Interior interior(const Axis& w) {
  Interior in{0, w.y};
  for (int64_t k = 0; k < w.kernel; ++k) {
    const Overlap o = w.overlap(k);
    in.first = std::max(in.first, o.count > 0 ? o.y_first : w.y);
    in.last = std::min(in.last, o.y_first + o.count);
  }
  in.last = std::max(in.first, in.last);
  return in;
}

bool inside(const Axis& w, int64_t column, int64_t tap) {
  const int64_t x = column * w.stride + tap * w.dilation - w.low;
  return x >= 0 && x < w.x;
}

template <class Tag>
void ForwardRow(Tag d, const float* const* x, const float* const* weights, int64_t rows, const Axis& w, int64_t b,
                float* y) {
  const Interior in = interior(w);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), step = w.stride * b;
  for (int64_t lane = 0; lane < b; lane += lanes) {
    const auto border = [&](int64_t begin, int64_t end) HWY_ATTR {
      for (int64_t c = begin; c < end; ++c) {
        auto acc = hn::Zero(d);
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t k = 0; k < w.kernel; ++k)
            if (inside(w, c, k))
              acc = hn::MulAdd(hn::LoadU(d, weights[r] + k * b + lane),
                               hn::LoadU(d, x[r] + (c * w.stride + k * w.dilation - w.low) * b + lane), acc);
        hn::StoreU(acc, d, y + c * b + lane);
      }
    };
    border(0, in.first);
    int64_t c = in.first;
    for (; c + kColumns <= in.last; c += kColumns) {
      auto a0 = hn::Zero(d), a1 = a0, a2 = a0, a3 = a0;
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t k = 0; k < w.kernel; ++k) {
          const auto weight = hn::LoadU(d, weights[r] + k * b + lane);
          const float* at = x[r] + (c * w.stride + k * w.dilation - w.low) * b + lane;
          a0 = hn::MulAdd(weight, hn::LoadU(d, at), a0);
          a1 = hn::MulAdd(weight, hn::LoadU(d, at + step), a1);
          a2 = hn::MulAdd(weight, hn::LoadU(d, at + 2 * step), a2);
          a3 = hn::MulAdd(weight, hn::LoadU(d, at + 3 * step), a3);
        }
      float* const to = y + c * b + lane;
      hn::StoreU(a0, d, to);
      hn::StoreU(a1, d, to + b);
      hn::StoreU(a2, d, to + 2 * b);
      hn::StoreU(a3, d, to + 3 * b);
    }
    border(c, w.y);
  }
}

// dx += dy spread over the taps of one row.
template <class Tag>
void ScatterRow(Tag d, const float* dy, const float* weights, const Axis& w, int64_t b, float* dx) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t k = 0; k < w.kernel; ++k) {
    const Overlap o = w.overlap(k);
    for (int64_t lane = 0; lane < b; lane += lanes) {
      const auto weight = hn::LoadU(d, weights + k * b + lane);
      for (int64_t i = 0; i < o.count; ++i) {
        float* const to = dx + (o.x_first + i * w.stride) * b + lane;
        hn::StoreU(hn::MulAdd(weight, hn::LoadU(d, dy + (o.y_first + i) * b + lane), hn::LoadU(d, to)), d, to);
      }
    }
  }
}

// dw[k] += sum over columns of dy * x for the taps of one row, kTaps of them in one pass over dy.
template <int64_t kTaps, class Tag>
void WeightTaps(Tag d, const float* x, const float* dy, const Axis& w, int64_t b, int64_t lane, int64_t first,
                const Interior& in, float* dw) {
  auto a0 = hn::Zero(d), a1 = a0, a2 = a0;
  const int64_t tap = w.dilation * b;
  const auto add = [&](int64_t c, bool check) HWY_ATTR {
    const auto g = hn::LoadU(d, dy + c * b + lane);
    const float* at = x + (c * w.stride + first * w.dilation - w.low) * b + lane;
    if (!check || inside(w, c, first)) a0 = hn::MulAdd(g, hn::LoadU(d, at), a0);
    if constexpr (kTaps > 1)
      if (!check || inside(w, c, first + 1)) a1 = hn::MulAdd(g, hn::LoadU(d, at + tap), a1);
    if constexpr (kTaps > 2)
      if (!check || inside(w, c, first + 2)) a2 = hn::MulAdd(g, hn::LoadU(d, at + 2 * tap), a2);
  };
  for (int64_t c = 0; c < in.first; ++c) add(c, true);
  for (int64_t c = in.first; c < in.last; ++c) add(c, false);
  for (int64_t c = in.last; c < w.y; ++c) add(c, true);
  const auto store = [&](int64_t k, auto v) HWY_ATTR {
    float* const to = dw + (first + k) * b + lane;
    hn::StoreU(hn::Add(hn::LoadU(d, to), v), d, to);
  };
  store(0, a0);
  if constexpr (kTaps > 1) store(1, a1);
  if constexpr (kTaps > 2) store(2, a2);
}

template <class Tag>
void WeightRow(Tag d, const float* x, const float* dy, const Axis& w, int64_t b, float* dw) {
  const Interior in = interior(w);
  for (int64_t lane = 0; lane < b; lane += static_cast<int64_t>(hn::Lanes(d))) {
    int64_t k = 0;
    for (; k + 3 <= w.kernel; k += 3) WeightTaps<3>(d, x, dy, w, b, lane, k, in, dw);
    if (k + 2 == w.kernel) WeightTaps<2>(d, x, dy, w, b, lane, k, in, dw);
    if (k + 1 == w.kernel) WeightTaps<1>(d, x, dy, w, b, lane, k, in, dw);
  }
}

bool Wide(int64_t b) { return b % static_cast<int64_t>(hn::Lanes(D())) == 0; }
const hn::CappedTag<float, 8> kNarrow;

void Forward(const float* const* x, const float* const* weights, int64_t rows, const Axis& w, int64_t b, float* y) {
  Wide(b) ? ForwardRow(D(), x, weights, rows, w, b, y) : ForwardRow(kNarrow, x, weights, rows, w, b, y);
}
void Scatter(const float* dy, const float* weights, const Axis& w, int64_t b, float* dx) {
  Wide(b) ? ScatterRow(D(), dy, weights, w, b, dx) : ScatterRow(kNarrow, dy, weights, w, b, dx);
}
void Weights(const float* x, const float* dy, const Axis& w, int64_t b, float* dw) {
  Wide(b) ? WeightRow(D(), x, dy, w, b, dw) : WeightRow(kNarrow, x, dy, w, b, dw);
}

DepthwiseRows Functions() { return {Forward, Scatter, Weights}; }

}  // namespace
}  // namespace deepseek::backends::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::backends::cpu {
namespace {

HWY_EXPORT(Functions);
const DepthwiseRows& depthwise_rows() {
  static const DepthwiseRows functions = HWY_DYNAMIC_DISPATCH(Functions)();
  return functions;
}

struct Shape {
  int64_t batch = 0, blocks = 0, block = 0;
  std::array<Axis, 3> axes;  // leading ones of size 1

  int64_t row_taps() const { return axes[0].kernel * axes[1].kernel; }
  int64_t weights() const { return row_taps() * axes[2].kernel * block; }  // floats per block of channels
  int64_t x_row() const { return axes[2].x * block; }
  int64_t y_row() const { return axes[2].y * block; }
  int64_t x_plane() const { return axes[0].x * axes[1].x * x_row(); }
  int64_t y_plane() const { return axes[0].y * axes[1].y * y_row(); }

  // visit(row of x, tap) for the rows that flow into a row of y.
  template <class Visit>
  void for_row_taps(int64_t y, Visit visit) const {
    const Axis &d = axes[0], &h = axes[1];
    for (int64_t kd = 0; kd < d.kernel; ++kd)
      for (int64_t kh = 0; kh < h.kernel; ++kh) {
        const int64_t i = y / h.y * d.stride + kd * d.dilation - d.low,
                      j = y % h.y * h.stride + kh * h.dilation - h.low;
        if (i >= 0 && i < d.x && j >= 0 && j < h.x) visit(i * h.x + j, kd * h.kernel + kh);
      }
  }
};

Shape shape_of(const ops::BlockedConvShape& s) {
  Shape shape{s.conv.batch, s.conv.in_channels / s.x_block, s.x_block, {}};
  const ops::Window& w = s.conv.window;
  const size_t lead = 3 - s.conv.input.size();
  for (size_t i = 0; i < s.conv.input.size(); ++i)
    shape.axes[lead + i] = {s.conv.input[i], s.conv.output[i], w.kernel[i],
                            w.stride[i],     w.padding_low[i], w.dilation[i]};
  return shape;
}

// The input's gradient where nothing is skipped is a convolution of dy by the weights from the other end.
bool turns_around(const Shape& s) {
  return std::all_of(s.axes.begin(), s.axes.end(), [](const Axis& a) { return a.stride == 1; });
}
Shape turned_around(const Shape& s) {
  Shape t = s;
  for (Axis& a : t.axes) a = {a.y, a.x, a.kernel, 1, (a.kernel - 1) * a.dilation - a.low, a.dilation};
  return t;
}

void forward(const Shape& s, const float* x, const float* weights, float* y) {
  const auto row_fn = depthwise_rows().forward;
  parallel_for(s.batch * s.blocks, 1, [&](int64_t begin, int64_t end) {
    std::vector<const float*> rows(static_cast<size_t>(s.row_taps())), taps(rows.size());
    for (int64_t p = begin; p < end; ++p)
      for (int64_t r = 0; r < s.axes[0].y * s.axes[1].y; ++r) {
        int64_t count = 0;
        s.for_row_taps(r, [&](int64_t row, int64_t tap) {
          rows[static_cast<size_t>(count)] = x + p * s.x_plane() + row * s.x_row();
          taps[static_cast<size_t>(count++)] = weights + p % s.blocks * s.weights() + tap * s.axes[2].kernel * s.block;
        });
        row_fn(rows.data(), taps.data(), count, s.axes[2], s.block, y + p * s.y_plane() + r * s.y_row());
      }
  });
}

void scatter(const Shape& s, const float* dy, const float* weights, float* dx) {
  const auto row_fn = depthwise_rows().scatter;
  parallel_for(s.batch * s.blocks, 1, [&](int64_t begin, int64_t end) {
    std::fill_n(dx + begin * s.x_plane(), (end - begin) * s.x_plane(), 0.0f);
    for (int64_t p = begin; p < end; ++p)
      for (int64_t r = 0; r < s.axes[0].y * s.axes[1].y; ++r)
        s.for_row_taps(r, [&](int64_t row, int64_t tap) {
          row_fn(dy + p * s.y_plane() + r * s.y_row(),
                 weights + p % s.blocks * s.weights() + tap * s.axes[2].kernel * s.block, s.axes[2], s.block,
                 dx + p * s.x_plane() + row * s.x_row());
        });
  });
}

// Sums of an image are added up in double precision; in the order of the images, whatever the number of threads.
void weight_gradient(const Shape& s, const float* x, const float* dy, float* dw) {
  const auto row_fn = depthwise_rows().weights;
  parallel_for(s.blocks, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> part(static_cast<size_t>(s.weights()));
    std::vector<double> total(part.size());
    for (int64_t b = begin; b < end; ++b) {
      std::fill(total.begin(), total.end(), 0.0);
      for (int64_t n = 0; n < s.batch; ++n) {
        std::fill(part.begin(), part.end(), 0.0f);
        const int64_t p = n * s.blocks + b;
        for (int64_t r = 0; r < s.axes[0].y * s.axes[1].y; ++r)
          s.for_row_taps(r, [&](int64_t row, int64_t tap) {
            row_fn(x + p * s.x_plane() + row * s.x_row(), dy + p * s.y_plane() + r * s.y_row(), s.axes[2], s.block,
                   part.data() + tap * s.axes[2].kernel * s.block);
          });
        for (size_t i = 0; i < total.size(); ++i) total[i] += part[i];
      }
      for (size_t i = 0; i < total.size(); ++i)
        dw[b * s.weights() + static_cast<int64_t>(i)] = static_cast<float>(total[i]);
    }
  });
}

class TurnedAround : public Kernel {
 public:
  explicit TurnedAround(const Shape& s) : shape_(turned_around(s)) {}
  size_t scratch_bytes() const override {
    return static_cast<size_t>(shape_.blocks * shape_.weights()) * sizeof(float);
  }
  Status run(const KernelArgs& args) const override {
    const auto* weights = static_cast<const float*>(args.in[1]);
    auto* turned = static_cast<float*>(args.scratch);
    const int64_t taps = shape_.weights() / shape_.block;
    for (int64_t b = 0; b < shape_.blocks; ++b)
      for (int64_t k = 0; k < taps; ++k)
        std::copy_n(weights + (b * taps + k) * shape_.block, shape_.block,
                    turned + (b * taps + taps - 1 - k) * shape_.block);
    forward(shape_, static_cast<const float*>(args.in[0]), turned, static_cast<float*>(args.out[0]));
    return {};
  }

 private:
  Shape shape_;
};

}  // namespace

Status takes_depthwise_conv(const NodeInfo& node) {
  if (node.context.in(0).dtype != DType::kF32)
    return refuse(fmt::format("dtype {} is not supported", to_string(node.context.in(0).dtype)));
  DS_ASSIGN(const ops::BlockedConvShape s, ops::depthwise_conv_geometry(node.context));
  if (s.x_block % 8 != 0) return refuse(fmt::format("a block of {} channels is no multiple of 8", s.x_block));
  for (const graph::TensorType& t : {node.context.in(0), node.context.in(1), node.outputs[0]})
    if (t.num_elements() == 0) return refuse("an operand is empty");
  return {};
}

KernelOrError make_depthwise_conv(const NodeInfo& node) {
  DS_ASSIGN(const ops::BlockedConvShape s, ops::depthwise_conv_geometry(node.context));
  const Shape shape = shape_of(s);
  const std::string& op = node.context.op->name.value;
  if (op == "depthwise_conv_input_grad" && turns_around(shape))
    return std::unique_ptr<Kernel>(std::make_unique<TurnedAround>(shape));
  const auto fn = op == "depthwise_conv" ? forward : op == "depthwise_conv_input_grad" ? scatter : weight_gradient;
  return make_kernel([=](const KernelArgs& args) -> Status {
    fn(shape, static_cast<const float*>(args.in[0]), static_cast<const float*>(args.in[1]),
       static_cast<float*>(args.out[0]));
    return {};
  });
}

}  // namespace deepseek::backends::cpu
#endif
