// f32 batch normalisation on blocked channels, [N, C/b, pixels, b]: one task per 16 channels, which fill a vector.
// Statistics are of chunks that stay in cache, joined by Chan et al. (1983), so that x is read from memory once.
#include <cmath>

#include "backends/cpu/kernel.h"
#include "base/simd.h"
#include "base/threads.h"

namespace deepseek::backends::cpu {

namespace {

constexpr int kLanes = 16;
constexpr int64_t kChunk = 256;  // pixels

// 16 channels of n pixels, `step` floats from pixel to pixel.
DS_SIMD void chunk_sum(const float* x, int64_t n, int64_t step, float* sum) {
  float s[kLanes] = {};
  for (int64_t p = 0; p < n; ++p)
    for (int j = 0; j < kLanes; ++j) s[j] += x[p * step + j];
  for (int j = 0; j < kLanes; ++j) sum[j] = s[j];
}
DS_SIMD void chunk_squares(const float* x, int64_t n, int64_t step, const float* mean, float* sum) {
  float s[kLanes] = {}, m[kLanes];
  for (int j = 0; j < kLanes; ++j) m[j] = mean[j];
  for (int64_t p = 0; p < n; ++p)
    for (int j = 0; j < kLanes; ++j) s[j] += (x[p * step + j] - m[j]) * (x[p * step + j] - m[j]);
  for (int j = 0; j < kLanes; ++j) sum[j] = s[j];
}
DS_SIMD void chunk_gradient_sums(const float* dy, const float* x, int64_t n, int64_t step, const float* mean,
                                 float* sum, float* dot) {
  float s[kLanes] = {}, d[kLanes] = {}, m[kLanes];
  for (int j = 0; j < kLanes; ++j) m[j] = mean[j];
  for (int64_t p = 0; p < n; ++p)
    for (int j = 0; j < kLanes; ++j) {
      s[j] += dy[p * step + j];
      d[j] += dy[p * step + j] * (x[p * step + j] - m[j]);
    }
  for (int j = 0; j < kLanes; ++j) {
    sum[j] = s[j];
    dot[j] = d[j];
  }
}
DS_SIMD void affine(const float* x, float* y, int64_t n, int64_t step, const float* scale, const float* shift) {
  float a[kLanes], b[kLanes];
  for (int j = 0; j < kLanes; ++j) {
    a[j] = scale[j];
    b[j] = shift[j];
  }
  for (int64_t p = 0; p < n; ++p)
    for (int j = 0; j < kLanes; ++j) y[p * step + j] = x[p * step + j] * a[j] + b[j];
}
// dx = a * dy + b * x + c
DS_SIMD void combine(const float* dy, const float* x, float* dx, int64_t n, int64_t step, const float* pa,
                     const float* pb, const float* pc) {
  float a[kLanes], b[kLanes], c[kLanes];
  for (int j = 0; j < kLanes; ++j) {
    a[j] = pa[j];
    b[j] = pb[j];
    c[j] = pc[j];
  }
  for (int64_t p = 0; p < n; ++p)
    for (int j = 0; j < kLanes; ++j) dx[p * step + j] = a[j] * dy[p * step + j] + b[j] * x[p * step + j] + c[j];
}

struct Shape {
  int64_t n, blocks, pixels, block;

  int64_t groups() const { return blocks * block / kLanes; }  // of 16 channels
  int64_t channel(int64_t group) const { return group * kLanes; }
  int64_t offset(int64_t n_, int64_t group) const {
    const int64_t per = block / kLanes;
    return (n_ * blocks + group / per) * pixels * block + group % per * kLanes;
  }
  // visit(offset, pixels) for chunks of all images of a group of channels.
  template <class Visit>
  void for_chunks(int64_t group, Visit visit) const {
    for (int64_t i = 0; i < n; ++i)
      for (int64_t p = 0; p < pixels; p += kChunk) visit(offset(i, group) + p * block, std::min(kChunk, pixels - p));
  }
};

const float* input(const KernelArgs& args, int i) { return static_cast<const float*>(args.in[i]); }
float* output(const KernelArgs& args, int i) { return static_cast<float*>(args.out[i]); }
void store(const KernelArgs& args, int i, int64_t at, double value) {
  if (args.out[i] != nullptr) output(args, i)[at] = static_cast<float>(value);
}

Status forward(const KernelArgs& args, const Shape& s, double momentum, double epsilon) {
  const float *x = input(args, 0), *scale = input(args, 1), *bias = input(args, 2), *mean_in = input(args, 3),
              *var_in = input(args, 4);
  parallel_for(s.groups(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      double mean[kLanes] = {}, squares[kLanes] = {}, count = 0;
      s.for_chunks(g, [&](int64_t at, int64_t pixels) {
        float sum[kLanes], chunk_mean[kLanes], deviations[kLanes];
        const auto m = static_cast<double>(pixels);
        chunk_sum(x + at, pixels, s.block, sum);
        for (int j = 0; j < kLanes; ++j) chunk_mean[j] = static_cast<float>(sum[j] / m);
        chunk_squares(x + at, pixels, s.block, chunk_mean, deviations);
        for (int j = 0; j < kLanes; ++j) {
          const double delta = chunk_mean[j] - mean[j];
          mean[j] += delta * m / (count + m);
          squares[j] += deviations[j] + delta * delta * count * m / (count + m);
        }
        count += m;
      });
      float a[kLanes], b[kLanes];
      for (int j = 0; j < kLanes; ++j) {
        const int64_t c = s.channel(g) + j;
        const double var = squares[j] / count, rstd = 1 / std::sqrt(var + epsilon);
        const double unbiased = count > 1 ? squares[j] / (count - 1) : var;
        a[j] = static_cast<float>(rstd) * scale[c];
        b[j] = bias[c] - static_cast<float>(mean[j]) * a[j];
        const double running_mean = (1 - momentum) * mean_in[c] + momentum * mean[j];
        const double running_var = (1 - momentum) * var_in[c] + momentum * unbiased;
        store(args, 1, c, mean[j]);
        store(args, 2, c, rstd);
        store(args, 3, c, running_mean);
        store(args, 4, c, running_var);
      }
      if (args.out[0] == nullptr) continue;
      s.for_chunks(g, [&](int64_t at, int64_t pixels) { affine(x + at, output(args, 0) + at, pixels, s.block, a, b); });
    }
  });
  return {};
}

Status backward(const KernelArgs& args, const Shape& s) {
  const float *dy = input(args, 0), *x = input(args, 1), *scale = input(args, 2), *mean = input(args, 3),
              *rstd = input(args, 4);
  const auto count = static_cast<double>(s.n * s.pixels);
  parallel_for(s.groups(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      double sum[kLanes] = {}, dot[kLanes] = {};
      s.for_chunks(g, [&](int64_t at, int64_t pixels) {
        float chunk_sums[kLanes], chunk_dots[kLanes];
        chunk_gradient_sums(dy + at, x + at, pixels, s.block, mean + s.channel(g), chunk_sums, chunk_dots);
        for (int j = 0; j < kLanes; ++j) {
          sum[j] += chunk_sums[j];
          dot[j] += chunk_dots[j];
        }
      });
      // dx = scale * rstd * (dy - mean(dy) - xhat * mean(dy * xhat))
      float a[kLanes], b[kLanes], k[kLanes];
      for (int j = 0; j < kLanes; ++j) {
        const int64_t c = s.channel(g) + j;
        const double factor = static_cast<double>(scale[c]) * rstd[c];
        const double slope = -factor * dot[j] * rstd[c] * rstd[c] / count;
        a[j] = static_cast<float>(factor);
        b[j] = static_cast<float>(slope);
        k[j] = static_cast<float>(-factor * sum[j] / count - slope * mean[c]);
        store(args, 1, c, dot[j] * rstd[c]);
        store(args, 2, c, sum[j]);
      }
      if (args.out[0] == nullptr) continue;
      s.for_chunks(g, [&](int64_t at, int64_t pixels) {
        combine(dy + at, x + at, output(args, 0) + at, pixels, s.block, a, b, k);
      });
    }
  });
  return {};
}

Status inference(const KernelArgs& args, const Shape& s, double epsilon) {
  parallel_for(s.n * s.groups(), std::max<int64_t>(1, 1024 / s.pixels), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float a[kLanes], b[kLanes];
      for (int j = 0; j < kLanes; ++j) {
        const int64_t c = s.channel(i % s.groups()) + j;
        a[j] = input(args, 1)[c] / std::sqrt(input(args, 4)[c] + static_cast<float>(epsilon));
        b[j] = input(args, 2)[c] - input(args, 3)[c] * a[j];
      }
      const int64_t at = s.offset(i / s.groups(), i % s.groups());
      affine(input(args, 0) + at, output(args, 0) + at, s.pixels, s.block, a, b);
    }
  });
  return {};
}

}  // namespace

KernelOrRefusal make_blocked_batch_norm(const NodeInfo& node) {
  const graph::OpContext& c = node.context;
  const int64_t block = c.integer("channel_block");
  if (block == 0) return refuse("the channels are not blocked");
  if (block % kLanes != 0) return refuse(fmt::format("channel_block {} is no multiple of {}", block, kLanes));
  for (const graph::TensorType& type : c.inputs)
    if (type.dtype != DType::kF32) return refuse(fmt::format("dtype {} is not supported", to_string(type.dtype)));
  const graph::TensorType& x = c.in(0);
  if (x.num_elements() == 0) return refuse("the input is empty");
  const Shape s{x.dims[0], x.dims[1], x.num_elements() / (x.dims[0] * x.dims[1] * block), block};
  const std::string& op = c.op->name.value;
  if (op == "batch_norm_grad") return make_kernel([s](const KernelArgs& args) { return backward(args, s); });
  const double epsilon = c.number("epsilon");
  if (op == "batch_norm_inference")
    return make_kernel([s, epsilon](const KernelArgs& args) { return inference(args, s, epsilon); });
  const double momentum = c.number("momentum");
  return make_kernel([=](const KernelArgs& args) { return forward(args, s, momentum, epsilon); });
}

}  // namespace deepseek::backends::cpu
