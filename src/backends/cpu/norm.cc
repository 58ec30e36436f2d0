// f32 batch, layer and group normalisation, forward and backward. Statistics in two passes (mean, then squared
// deviations) with 16 lanes per row and double across rows, so that a large mean costs no precision.
#include <cmath>

#include "backends/cpu/kernel.h"
#include "base/simd.h"
#include "base/threads.h"

namespace deepseek::backends::cpu {

namespace {

// Sum of (x - shift)^power over a row.
DS_SIMD double row_sum(const float* x, int64_t n) {
  float lanes[16] = {};
  int64_t i = 0;
  double total = 0;
  for (int64_t block = 0; block < n; block = i) {
    const int64_t end = std::min(n, block + 4096);
    for (float& lane : lanes) lane = 0;
    for (i = block; i + 16 <= end; i += 16)
      for (int j = 0; j < 16; ++j) lanes[j] += x[i + j];
    for (; i < end; ++i) lanes[i % 16] += x[i];
    for (float lane : lanes) total += lane;
  }
  return total;
}
DS_SIMD double row_squares(const float* x, int64_t n, float mean) {
  float lanes[16] = {};
  int64_t i = 0;
  double total = 0;
  for (int64_t block = 0; block < n; block = i) {
    const int64_t end = std::min(n, block + 4096);
    for (float& lane : lanes) lane = 0;
    for (i = block; i + 16 <= end; i += 16)
      for (int j = 0; j < 16; ++j) lanes[j] += (x[i + j] - mean) * (x[i + j] - mean);
    for (; i < end; ++i) lanes[i % 16] += (x[i] - mean) * (x[i] - mean);
    for (float lane : lanes) total += lane;
  }
  return total;
}
// Sums of dy and dy * (x - mean).
DS_SIMD void row_gradient_sums(const float* dy, const float* x, int64_t n, float mean, double& sum, double& dot) {
  float a[16] = {}, b[16] = {};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; ++j) {
      a[j] += dy[i + j];
      b[j] += dy[i + j] * (x[i + j] - mean);
    }
  for (; i < n; ++i) {
    a[i % 16] += dy[i];
    b[i % 16] += dy[i] * (x[i] - mean);
  }
  for (int j = 0; j < 16; ++j) {
    sum += a[j];
    dot += b[j];
  }
}
// The same with dy weighted per element.
DS_SIMD void row_weighted_sums(const float* dy, const float* w, const float* x, int64_t n, float mean, double& sum,
                               double& dot) {
  float a[16] = {}, b[16] = {};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; ++j) {
      const float g = dy[i + j] * w[i + j];
      a[j] += g;
      b[j] += g * (x[i + j] - mean);
    }
  for (; i < n; ++i) {
    a[i % 16] += dy[i] * w[i];
    b[i % 16] += dy[i] * w[i] * (x[i] - mean);
  }
  for (int j = 0; j < 16; ++j) {
    sum += a[j];
    dot += b[j];
  }
}
DS_SIMD void row_affine(const float* x, float* y, int64_t n, float scale, float shift) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * scale + shift;
}
// dx = a * dy + b * x + c
DS_SIMD void row_combine(const float* dy, const float* x, float* dx, int64_t n, float a, float b, float c) {
  for (int64_t i = 0; i < n; ++i) dx[i] = a * dy[i] + b * x[i] + c;
}
DS_SIMD void row_layer(const float* x, const float* scale, const float* bias, float* y, int64_t n, float mean,
                       float rstd) {
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - mean) * rstd * scale[i] + bias[i];
}
DS_SIMD void row_layer_dx(const float* dy, const float* w, const float* x, float* dx, int64_t n, float rstd, float b,
                          float c) {
  for (int64_t i = 0; i < n; ++i) dx[i] = rstd * dy[i] * w[i] + b * x[i] + c;
}
DS_SIMD void row_layer_affine_grads(const float* dy, const float* x, float* dscale, float* dbias, int64_t n, float mean,
                                    float rstd) {
  for (int64_t i = 0; i < n; ++i) {
    dscale[i] += dy[i] * (x[i] - mean) * rstd;
    dbias[i] += dy[i];
  }
}

const float* input(const KernelArgs& args, int i) { return static_cast<const float*>(args.in[i]); }
float* output(const KernelArgs& args, int i) { return static_cast<float*>(args.out[i]); }
void store(const KernelArgs& args, int i, int64_t at, double value) {
  if (args.out[i] != nullptr) output(args, i)[at] = static_cast<float>(value);
}

struct BatchShape {
  int64_t n, c, inner;
};
BatchShape batch_shape(const graph::TensorType& t) {
  return {t.dims[0], t.dims[1], t.dims[0] * t.dims[1] == 0 ? 0 : t.num_elements() / (t.dims[0] * t.dims[1])};
}

Status batch_forward(const KernelArgs& args, BatchShape s, double momentum, double epsilon) {
  const float *x = input(args, 0), *scale = input(args, 1), *bias = input(args, 2), *mean_in = input(args, 3),
              *var_in = input(args, 4);
  const double count = static_cast<double>(s.n * s.inner);
  parallel_for(s.c, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      double sum = 0, squares = 0;
      for (int64_t n = 0; n < s.n; ++n) sum += row_sum(x + (n * s.c + c) * s.inner, s.inner);
      const double mean = sum / count;
      for (int64_t n = 0; n < s.n; ++n)
        squares += row_squares(x + (n * s.c + c) * s.inner, s.inner, static_cast<float>(mean));
      const double var = squares / count, rstd = 1 / std::sqrt(var + epsilon);
      store(args, 1, c, mean);
      store(args, 2, c, rstd);
      store(args, 3, c, (1 - momentum) * mean_in[c] + momentum * mean);
      store(args, 4, c, (1 - momentum) * var_in[c] + momentum * (count > 1 ? squares / (count - 1) : var));
      if (args.out[0] == nullptr) continue;
      const float a = static_cast<float>(rstd) * scale[c], b = bias[c] - static_cast<float>(mean) * a;
      for (int64_t n = 0; n < s.n; ++n) {
        const int64_t at = (n * s.c + c) * s.inner;
        row_affine(x + at, output(args, 0) + at, s.inner, a, b);
      }
    }
  });
  return {};
}

Status batch_backward(const KernelArgs& args, BatchShape s) {
  const float *dy = input(args, 0), *x = input(args, 1), *scale = input(args, 2), *mean = input(args, 3),
              *rstd = input(args, 4);
  const double count = static_cast<double>(s.n * s.inner);
  parallel_for(s.c, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      double sum = 0, dot = 0;
      for (int64_t n = 0; n < s.n; ++n) {
        const int64_t at = (n * s.c + c) * s.inner;
        row_gradient_sums(dy + at, x + at, s.inner, mean[c], sum, dot);
      }
      store(args, 1, c, dot * rstd[c]);
      store(args, 2, c, sum);
      if (args.out[0] == nullptr) continue;
      // dx = scale * rstd * (dy - mean(dy) - xhat * mean(dy * xhat))
      const double a = static_cast<double>(scale[c]) * rstd[c];
      const double b = -a * dot * rstd[c] * rstd[c] / count;
      const double k = -a * sum / count - b * mean[c];
      for (int64_t n = 0; n < s.n; ++n) {
        const int64_t at = (n * s.c + c) * s.inner;
        row_combine(dy + at, x + at, output(args, 0) + at, s.inner, static_cast<float>(a), static_cast<float>(b),
                    static_cast<float>(k));
      }
    }
  });
  return {};
}

Status layer_forward(const KernelArgs& args, int64_t rows, int64_t n, double epsilon) {
  parallel_for(rows, std::max<int64_t>(1, 8192 / std::max<int64_t>(n, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* x = input(args, 0) + r * n;
      const double mean = row_sum(x, n) / static_cast<double>(n);
      const double rstd = 1 / std::sqrt(row_squares(x, n, static_cast<float>(mean)) / static_cast<double>(n) + epsilon);
      store(args, 1, r, mean);
      store(args, 2, r, rstd);
      if (args.out[0] != nullptr)
        row_layer(x, input(args, 1), input(args, 2), output(args, 0) + r * n, n, static_cast<float>(mean),
                  static_cast<float>(rstd));
    }
  });
  return {};
}

Status layer_backward(const KernelArgs& args, int64_t rows, int64_t n) {
  const float *dy = input(args, 0), *x = input(args, 1), *scale = input(args, 2), *mean = input(args, 3),
              *rstd = input(args, 4);
  if (args.out[0] != nullptr)
    parallel_for(rows, std::max<int64_t>(1, 8192 / n), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        double sum = 0, dot = 0;
        row_weighted_sums(dy + r * n, scale, x + r * n, n, mean[r], sum, dot);
        const double b = -dot * rstd[r] * rstd[r] * rstd[r] / static_cast<double>(n);
        const double c = -rstd[r] * sum / static_cast<double>(n) - b * mean[r];
        row_layer_dx(dy + r * n, scale, x + r * n, output(args, 0) + r * n, n, rstd[r], static_cast<float>(b),
                     static_cast<float>(c));
      }
    });
  if (args.out[1] == nullptr && args.out[2] == nullptr) return {};
  // Columns are split over threads, so that the sum's order does not depend on their number.
  parallel_for(n, std::max<int64_t>(16, 65536 / std::max<int64_t>(rows, 1)), [&](int64_t begin, int64_t end) {
    std::vector<float> dscale(static_cast<size_t>(end - begin)), dbias(dscale.size());
    for (int64_t r = 0; r < rows; ++r)
      row_layer_affine_grads(dy + r * n + begin, x + r * n + begin, dscale.data(), dbias.data(), end - begin, mean[r],
                             rstd[r]);
    for (int64_t i = begin; i < end; ++i) {
      store(args, 1, i, dscale[i - begin]);
      store(args, 2, i, dbias[i - begin]);
    }
  });
  return {};
}

// A set of statistics is one run of memory: the `per` channels of one group in one sample.
struct GroupShape {
  int64_t n, groups, per, inner;
  int64_t size() const { return per * inner; }
};

Status group_forward(const KernelArgs& args, GroupShape s, double epsilon) {
  const float *x = input(args, 0), *scale = input(args, 1), *bias = input(args, 2);
  parallel_for(s.n * s.groups, std::max<int64_t>(1, 8192 / s.size()), [&](int64_t begin, int64_t end) {
    for (int64_t set = begin; set < end; ++set) {
      const float* from = x + set * s.size();
      const double count = static_cast<double>(s.size()), mean = row_sum(from, s.size()) / count;
      const double var = row_squares(from, s.size(), static_cast<float>(mean)) / count;
      const double rstd = 1 / std::sqrt(var + epsilon);
      store(args, 1, set, mean);
      store(args, 2, set, rstd);
      if (args.out[0] == nullptr) continue;
      float* to = output(args, 0) + set * s.size();
      for (int64_t k = 0; k < s.per; ++k) {
        const int64_t c = set % s.groups * s.per + k;
        const double a = rstd * scale[c], b = bias[c] - mean * a;
        row_affine(from + k * s.inner, to + k * s.inner, s.inner, static_cast<float>(a), static_cast<float>(b));
      }
    }
  });
  return {};
}

// The sums over each channel of each sample come first, into scratch; dx and the parameters' gradients both read them.
Status group_backward(const KernelArgs& args, GroupShape s) {
  const float *dy = input(args, 0), *x = input(args, 1), *scale = input(args, 2), *mean = input(args, 3),
              *rstd = input(args, 4);
  const int64_t channels = s.groups * s.per;
  double* const sums = static_cast<double*>(args.scratch);  // [n][channels][2]: dy, dy * (x - mean)
  parallel_for(s.n * s.groups, std::max<int64_t>(1, 8192 / s.size()), [&](int64_t begin, int64_t end) {
    for (int64_t set = begin; set < end; ++set) {
      double g = 0, gx = 0;
      for (int64_t k = 0; k < s.per; ++k) {
        const int64_t row = set * s.per + k;
        double sum = 0, dot = 0;
        row_gradient_sums(dy + row * s.inner, x + row * s.inner, s.inner, mean[set], sum, dot);
        sums[2 * row] = sum;
        sums[2 * row + 1] = dot;
        g += sum * scale[row % channels];
        gx += dot * scale[row % channels];
      }
      if (args.out[0] == nullptr) continue;
      // dx = rstd * (g - mean(g) - xhat * mean(g * xhat)) with g = dy * scale
      const double r = rstd[set], b = -r * r * r * gx / static_cast<double>(s.size());
      const double c = -r * g / static_cast<double>(s.size()) - b * mean[set];
      for (int64_t k = 0; k < s.per; ++k) {
        const int64_t row = set * s.per + k;
        row_combine(dy + row * s.inner, x + row * s.inner, output(args, 0) + row * s.inner, s.inner,
                    static_cast<float>(r * scale[row % channels]), static_cast<float>(b), static_cast<float>(c));
      }
    }
  });
  for (int64_t c = 0; c < channels; ++c) {
    double dscale = 0, dbias = 0;
    for (int64_t n = 0; n < s.n; ++n) {
      dbias += sums[2 * (n * channels + c)];
      dscale += sums[2 * (n * channels + c) + 1] * rstd[n * s.groups + c / s.per];
    }
    store(args, 1, c, dscale);
    store(args, 2, c, dbias);
  }
  return {};
}

class GroupBackward : public Kernel {
 public:
  explicit GroupBackward(GroupShape shape) : shape_(shape) {}
  Status run(const KernelArgs& args) const override { return group_backward(args, shape_); }
  size_t scratch_bytes() const override {
    return static_cast<size_t>(shape_.n * shape_.groups * shape_.per) * 2 * sizeof(double);
  }

 private:
  GroupShape shape_;
};

Status require_f32(const NodeInfo& node) {
  for (const graph::TensorType& type : node.context.inputs)
    if (type.dtype != DType::kF32) return refuse(fmt::format("dtype {} is not supported", to_string(type.dtype)));
  if (node.context.in(0).num_elements() == 0) return refuse("the input is empty");
  return {};
}

Status require_plain(const NodeInfo& node) {
  if (node.context.integer("channel_block") != 0) return refuse("the channels are blocked");
  return {};
}

}  // namespace

Status takes_batch_norm(const NodeInfo& node) {
  DS_TRY(require_f32(node));
  return require_plain(node);
}

KernelOrError make_batch_norm(const NodeInfo& node) {
  const BatchShape s = batch_shape(node.context.in(0));
  if (node.context.op->name.value == "batch_norm_grad")
    return make_kernel([s](const KernelArgs& args) { return batch_backward(args, s); });
  const double momentum = node.context.number("momentum"), epsilon = node.context.number("epsilon");
  return make_kernel([=](const KernelArgs& args) { return batch_forward(args, s, momentum, epsilon); });
}

Status takes_batch_norm_inference(const NodeInfo& node) { return takes_batch_norm(node); }

KernelOrError make_batch_norm_inference(const NodeInfo& node) {
  const BatchShape s = batch_shape(node.context.in(0));
  const double epsilon = node.context.number("epsilon");
  return make_kernel([=](const KernelArgs& args) -> Status {
    parallel_for(s.n * s.c, std::max<int64_t>(1, 8192 / s.inner), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t c = i % s.c;
        const float a = input(args, 1)[c] / std::sqrt(input(args, 4)[c] + static_cast<float>(epsilon));
        row_affine(input(args, 0) + i * s.inner, output(args, 0) + i * s.inner, s.inner, a,
                   input(args, 2)[c] - input(args, 3)[c] * a);
      }
    });
    return {};
  });
}

Status takes_group_norm(const NodeInfo& node) { return require_f32(node); }

KernelOrError make_group_norm(const NodeInfo& node) {
  const BatchShape b = batch_shape(node.context.in(0));
  const int64_t groups = node.context.integer("groups");
  const GroupShape s{b.n, groups, b.c / groups, b.inner};
  if (node.context.op->name.value == "group_norm_grad")
    return std::unique_ptr<Kernel>(std::make_unique<GroupBackward>(s));
  const double epsilon = node.context.number("epsilon");
  return make_kernel([=](const KernelArgs& args) { return group_forward(args, s, epsilon); });
}

Status takes_layer_norm(const NodeInfo& node) { return require_f32(node); }

KernelOrError make_layer_norm(const NodeInfo& node) {
  const bool backward = node.context.op->name.value == "layer_norm_grad";
  const int64_t n = node.context.in(backward ? 2 : 1).num_elements();
  const int64_t rows = node.context.in(0).num_elements() / n;
  if (backward) return make_kernel([=](const KernelArgs& args) { return layer_backward(args, rows, n); });
  const double epsilon = node.context.number("epsilon");
  return make_kernel([=](const KernelArgs& args) { return layer_forward(args, rows, n, epsilon); });
}

}  // namespace deepseek::backends::cpu
