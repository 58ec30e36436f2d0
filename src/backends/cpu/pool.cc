// Max pooling of f32 and bf16 and average pooling of f32 of 1 to 3 spatial axes, forward and backward: direct loops,
// one plane per task.
#include "ops/pool.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

#include "backends/cpu/elements.h"
#include "backends/cpu/kernel.h"
#include "backends/cpu/tile_ops.h"
#include "base/simd.h"
#include "base/threads.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/pool.cc"
// foreach_target.h must come before what it includes again for each target.
// clang-format off
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#ifndef DEEPSEEK_POOL3
#define DEEPSEEK_POOL3
namespace deepseek::backends::cpu {
// Pads the spatial dims to three with leading ones, so that one loop nest serves all ranks.
struct Pool3 {
  int64_t planes, in[3], out[3], kernel[3], stride[3], low[3], dilation[3];
};
using MaxRowFn = void (*)(const Pool3& p, const void* x, int64_t a, void* y, int32_t* indices);
}  // namespace deepseek::backends::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace deepseek::backends::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Row a of a plane's result where the last axis holds the channels of a block: windows don't slide over it, and its
// elements go side by side. The first of equal values wins, and NaN wins over all.
template <class T>
void MaxRow(const Pool3& p, const void* x, int64_t a, void* y, int32_t* indices) {
  const hn::CappedTag<float, 16> d;
  const hn::Rebind<uint32_t, decltype(d)> du;
  const hn::Rebind<uint16_t, decltype(d)> dh;
  const hn::Rebind<int32_t, decltype(d)> di;
  const auto load = [&](int64_t at) HWY_ATTR {
    if constexpr (sizeof(T) == 4)
      return hn::LoadU(d, static_cast<const float*>(x) + at);
    else
      return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(dh, static_cast<const uint16_t*>(x) + at))));
  };
  const auto store = [&](auto v, int64_t at) HWY_ATTR {
    if constexpr (sizeof(T) == 4) {
      hn::StoreU(v, d, static_cast<float*>(y) + at);
    } else {  // one of x's numbers, so that nothing is rounded
      const auto high = hn::BitCast(di, hn::ShiftRight<16>(hn::BitCast(du, v)));
      hn::StoreU(hn::DemoteTo(dh, high), dh, static_cast<uint16_t*>(y) + at);
    }
  };
  const auto count = hn::Iota(di, 0);  // goes by way of memory, so once
  const int64_t n = static_cast<int64_t>(hn::Lanes(d)), lanes = p.in[2];
  // The taps [first, last) that are inside.
  const auto inside = [&p](int axis, int64_t at, int64_t* first, int64_t* last) {
    const int64_t begin = at * p.stride[axis] - p.low[axis], step = p.dilation[axis];
    *first = begin < 0 ? (-begin + step - 1) / step : 0;
    *last = std::clamp<int64_t>((p.in[axis] - begin + step - 1) / step, 0, p.kernel[axis]);
    return begin;
  };
  int64_t i0, i1, j0, j1;
  const int64_t top = inside(0, a, &i0, &i1);
  for (int64_t b = 0; b < p.out[1]; ++b) {
    const int64_t left = inside(1, b, &j0, &j1);
    for (int64_t lane = 0; lane < lanes; lane += n) {
      auto best = hn::Set(d, -std::numeric_limits<float>::infinity());
      auto index = hn::Set(di, -1);
      bool any = false;
      for (int64_t i = i0; i < i1; ++i)
        for (int64_t j = j0; j < j1; ++j) {
          const int64_t at = ((top + i * p.dilation[0]) * p.in[1] + left + j * p.dilation[1]) * lanes + lane;
          const auto v = load(at);
          const auto take = any ? hn::Or(hn::Gt(v, best), hn::Ne(v, v)) : hn::Eq(best, best);
          any = true;
          best = hn::IfThenElse(take, v, best);
          if (indices != nullptr)
            index =
                hn::IfThenElse(hn::RebindMask(di, take), hn::Add(count, hn::Set(di, static_cast<int32_t>(at))), index);
        }
      if (y != nullptr) store(best, b * lanes + lane);
      if (indices != nullptr) hn::StoreU(index, di, indices + b * lanes + lane);
    }
  }
}

MaxRowFn FindMaxRow(bool bf16) { return bf16 ? MaxRow<uint16_t> : MaxRow<float>; }

}  // namespace deepseek::backends::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deepseek::backends::cpu {

using graph::Dims;

HWY_EXPORT(FindMaxRow);

namespace {

Pool3 widen(const ops::PoolShape& s) {
  Pool3 p{.planes = s.planes};
  const size_t lead = 3 - s.input.size();
  for (size_t i = 0; i < 3; ++i) {
    const bool given = i >= lead;
    p.in[i] = given ? s.input[i - lead] : 1;
    p.out[i] = given ? s.output[i - lead] : 1;
    p.kernel[i] = given ? s.window.kernel[i - lead] : 1;
    p.stride[i] = given ? s.window.stride[i - lead] : 1;
    p.low[i] = given ? s.window.padding_low[i - lead] : 0;
    p.dilation[i] = given ? s.window.dilation[i - lead] : 1;
  }
  return p;
}

// Calls visit(input offset) for each element of the window at (a, b, c) that lies inside the plane, in row-major order.
template <class Visit>
inline void for_window(const Pool3& p, int64_t a, int64_t b, int64_t c, Visit visit) {
  for (int64_t i = 0; i < p.kernel[0]; ++i) {
    const int64_t z = a * p.stride[0] - p.low[0] + i * p.dilation[0];
    if (z < 0 || z >= p.in[0]) continue;
    for (int64_t j = 0; j < p.kernel[1]; ++j) {
      const int64_t y = b * p.stride[1] - p.low[1] + j * p.dilation[1];
      if (y < 0 || y >= p.in[1]) continue;
      for (int64_t k = 0; k < p.kernel[2]; ++k) {
        const int64_t x = c * p.stride[2] - p.low[2] + k * p.dilation[2];
        if (x >= 0 && x < p.in[2]) visit((z * p.in[1] + y) * p.in[2] + x);
      }
    }
  }
}

// Calls visit(plane, output offset in the plane, a, b, c) for every output element, planes in parallel.
template <class Visit>
void for_outputs(const Pool3& p, Visit visit) {
  const int64_t out_size = p.out[0] * p.out[1] * p.out[2];
  parallel_for(p.planes, std::max<int64_t>(1, 4096 / std::max<int64_t>(out_size, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      int64_t at = 0;
      for (int64_t a = 0; a < p.out[0]; ++a)
        for (int64_t b = 0; b < p.out[1]; ++b)
          for (int64_t c = 0; c < p.out[2]; ++c) visit(plane, at++, a, b, c);
    }
  });
}

// The last axis holds the channels of a block: windows don't slide over it, and its elements go side by side.
bool has_lanes(const Pool3& p) {
  return p.kernel[2] == 1 && p.stride[2] == 1 && p.low[2] == 0 && p.in[2] == p.out[2] && p.in[2] % 16 == 0;
}

// visit(plane, output offset, visit_window) for every pixel of the planes, where visit_window(f) calls f(input offset)
// for the pixels of the window.
template <class Visit>
void for_pixels(const Pool3& p, Visit visit) {
  const int64_t lanes = p.in[2], rows = p.out[0] * p.out[1];
  parallel_for(p.planes * p.out[0], std::max<int64_t>(1, 4096 / (p.out[1] * lanes)), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t plane = task / p.out[0], a = task % p.out[0];
      for (int64_t b = 0; b < p.out[1]; ++b)
        visit(plane * p.in[0] * p.in[1] * lanes, (plane * rows + a * p.out[1] + b) * lanes, a * p.out[1] + b,
              [&](auto&& f) { for_window(p, a, b, 0, f); });
    }
  });
}

DS_SIMD void lanes_add(const float* x, int64_t n, float factor, float* sum) {
  for (int64_t j = 0; j < n; ++j) sum[j] += x[j] * factor;
}

// Row a of every plane's result.
void max_lanes(const Pool3& p, bool bf16, const void* x, void* y, int32_t* indices) {
  const int64_t in_size = p.in[0] * p.in[1] * p.in[2], row = p.out[1] * p.in[2], element = bf16 ? 2 : 4;
  const MaxRowFn max_row = HWY_DYNAMIC_DISPATCH(FindMaxRow)(bf16);
  parallel_for(p.planes * p.out[0], std::max<int64_t>(1, 4096 / row), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task)
      max_row(p, static_cast<const char*>(x) + task / p.out[0] * in_size * element, task % p.out[0],
              y == nullptr ? nullptr : static_cast<char*>(y) + task * row * element,
              indices == nullptr ? nullptr : indices + task * row);
  });
}

Status require_f32(const NodeInfo& node) {
  if (node.context.in(0).dtype != DType::kF32)
    return refuse(fmt::format("dtype {} is not supported", to_string(node.context.in(0).dtype)));
  return {};
}

}  // namespace

Status takes_max_pool(const NodeInfo& node) {
  DS_ASSIGN(const ops::PoolShape s, ops::pool_geometry(node.context));
  return node.context.in(0).dtype == DType::kBF16 && has_lanes(widen(s)) ? Status() : require_f32(node);
}

KernelOrError make_max_pool(const NodeInfo& node) {
  DS_ASSIGN(const ops::PoolShape s, ops::pool_geometry(node.context));
  const bool bf16 = node.context.in(0).dtype == DType::kBF16;
  return make_kernel([p = widen(s), bf16](const KernelArgs& args) -> Status {
    if (has_lanes(p)) {
      max_lanes(p, bf16, args.in[0], args.out[0], static_cast<int32_t*>(args.out[1]));
      return {};
    }
    const float* x = static_cast<const float*>(args.in[0]);
    float* y = static_cast<float*>(args.out[0]);
    int32_t* indices = static_cast<int32_t*>(args.out[1]);
    const int64_t in_size = p.in[0] * p.in[1] * p.in[2], out_size = p.out[0] * p.out[1] * p.out[2];
    for_outputs(p, [&](int64_t plane, int64_t at, int64_t a, int64_t b, int64_t c) {
      const float* from = x + plane * in_size;
      float best = -std::numeric_limits<float>::infinity();
      int64_t index = -1;
      for_window(p, a, b, c, [&](int64_t i) {
        if (index < 0 || from[i] > best || from[i] != from[i]) {
          best = from[i];
          index = i;
        }
      });
      if (y != nullptr) y[plane * out_size + at] = best;
      if (indices != nullptr) indices[plane * out_size + at] = static_cast<int32_t>(index);
    });
    return {};
  });
}

Status takes_max_pool_grad(const NodeInfo& node) {
  if (node.context.in(0).dtype != DType::kBF16) DS_TRY(require_f32(node));
  const Dims& dx = node.outputs[0].dims;
  return dx[0] * dx[1] > 0 ? Status() : refuse("the input is empty");
}

KernelOrError make_max_pool_grad(const NodeInfo& node) {
  const graph::TensorType &dx = node.outputs[0], &dy = node.context.in(0);
  const bool bf16 = dy.dtype == DType::kBF16;
  const int64_t planes = dx.dims[0] * dx.dims[1];
  const int64_t in_size = dx.num_elements() / planes, out_size = dy.num_elements() / planes;
  const DType index_dtype = node.context.in(1).dtype;
  const auto run = [=](const auto* indices, const KernelArgs& args) -> Status {
    const TileFn narrow = tile_fn(TileOp::kCast, DType::kF32, DType::kBF16);
    std::atomic<int64_t> wrong = -1;  // position of an index that is outside
    parallel_for(planes, std::max<int64_t>(1, 16384 / std::max<int64_t>(in_size, 1)), [&](int64_t begin, int64_t end) {
      const auto add = [&](int64_t plane, const auto* from, float* to) {
        std::fill_n(to, in_size, 0.0f);
        for (int64_t i = plane * out_size; i < (plane + 1) * out_size; ++i) {
          if (indices[i] >= 0 && indices[i] < in_size)
            to[indices[i]] += static_cast<float>(from[i]);
          else
            wrong = i;
        }
      };
      std::vector<float> sums(static_cast<size_t>(bf16 ? in_size : 0));  // of a plane
      for (int64_t plane = begin; plane < end; ++plane) {
        if (!bf16) {
          add(plane, static_cast<const float*>(args.in[0]), static_cast<float*>(args.out[0]) + plane * in_size);
          continue;
        }
        add(plane, static_cast<const BF16*>(args.in[0]), sums.data());
        const void* in[] = {sums.data()};
        narrow(in, static_cast<BF16*>(args.out[0]) + plane * in_size, in_size);
      }
    });
    if (wrong < 0) return {};
    return invalid("index {} at position {} is outside the plane of {} elements", indices[wrong.load()], wrong.load(),
                   in_size);
  };
  return make_kernel([=](const KernelArgs& args) -> Status {
    return visit_index(index_dtype, [&](auto i) { return run(static_cast<const decltype(i)*>(args.in[1]), args); });
  });
}

Status takes_avg_pool(const NodeInfo& node) { return require_f32(node); }

KernelOrError make_avg_pool(const NodeInfo& node) {
  DS_ASSIGN(const ops::PoolShape s, ops::pool_geometry(node.context));
  const bool backward = node.context.op->name.value == "avg_pool_grad";
  // One divisor per window position, the same on all planes.
  std::vector<float> weight;
  Dims at(s.output.size());
  for (int64_t i = 0; i < graph::product(s.output); ++i, ops::next_index(at, s.output))
    weight.push_back(1.0f / static_cast<float>(ops::avg_pool_divisor(s, at, node.context.flag("count_include_pad"))));
  return make_kernel([p = widen(s), weight, backward](const KernelArgs& args) -> Status {
    const int64_t in_size = p.in[0] * p.in[1] * p.in[2], out_size = p.out[0] * p.out[1] * p.out[2];
    const float* from = static_cast<const float*>(args.in[0]);
    float* to = static_cast<float*>(args.out[0]);
    if (backward) std::memset(to, 0, static_cast<size_t>(p.planes * in_size) * sizeof(float));
    if (has_lanes(p) && !backward) {
      for_pixels(p, [&](int64_t in, int64_t out, int64_t at, auto window) {
        std::fill_n(to + out, p.in[2], 0.0f);
        window([&](int64_t i) { lanes_add(from + in + i, p.in[2], weight[at * p.in[2]], to + out); });
      });
      return {};
    }
    for_outputs(p, [&](int64_t plane, int64_t at, int64_t a, int64_t b, int64_t c) {
      if (backward) {
        const float share = from[plane * out_size + at] * weight[at];
        for_window(p, a, b, c, [&](int64_t i) { to[plane * in_size + i] += share; });
      } else {
        float sum = 0;
        for_window(p, a, b, c, [&](int64_t i) { sum += from[plane * in_size + i]; });
        to[plane * out_size + at] = sum * weight[at];
      }
    });
    return {};
  });
}

}  // namespace deepseek::backends::cpu
#endif
