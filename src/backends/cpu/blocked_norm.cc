// Batch normalisation on blocked channels, [N, C/b, pixels, b], of f32 or half floats with f32 statistics, with the
// element-wise loop after it, or before its gradient. A task has one block of channels: what it reads first, for
// statistics, it finds in cache when it reads it again. Statistics are of chunks, joined by Chan et al. (1983).
#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "backends/cpu/anchored.h"
#include "backends/cpu/kernel.h"
#include "base/threads.h"
#include "ops/dsl.h"

namespace deepseek::backends::cpu {

using namespace graph;

namespace {

constexpr int64_t kChunk = 4096;  // elements
constexpr int64_t kMostLanes = 64;

struct Shape {
  int64_t n, blocks, pixels, block;

  int64_t channels() const { return blocks * block; }
  int64_t plane() const { return pixels * block; }
  int64_t offset(int64_t image, int64_t b) const { return (image * blocks + b) * plane(); }
  // [1, C/b, 1, ..., b] for a tensor of x's rank: the same bytes as [C].
  TensorType per_channel(const TensorType& x) const {
    Dims dims(x.dims.size(), 1);
    dims[1] = blocks;
    dims.back() = block;
    return {DType::kF32, dims};
  }
};

Shape shape_of(const Anchored& a) {
  const TensorType& x = a.body.type(a.node().inputs[0]);
  const int64_t block = a.node().attrs.integer("channel_block");
  return {x.dims[0], x.dims[1], x.num_elements() / (x.dims[0] * x.dims[1] * block), block};
}

// Elements of a tensor as f32: themselves, or in `buffer`, at most kChunk.
class Elements {
 public:
  Elements(const void* tensor, DType dtype)
      : tensor_(static_cast<const char*>(tensor)),
        size_(static_cast<int64_t>(size_of(dtype))),
        widen_(dtype == DType::kF32 ? nullptr : tile_fn(TileOp::kCast, dtype, DType::kF32)) {}
  const float* at(int64_t first, int64_t n, float* buffer) const {
    const void* from = tensor_ + first * size_;
    if (widen_ == nullptr) return static_cast<const float*>(from);
    widen_(&from, buffer, n);
    return buffer;
  }

 private:
  const char* tensor_;
  int64_t size_;
  TileFn widen_;
};

// What loops read that is no input of the node.
enum Source { kFactor = -1, kShift = -2, kSlope = -3, kMean = -4 };

void store(const KernelArgs& args, int i, int64_t at, double value) {
  if (i >= 0 && args.out[i] != nullptr) static_cast<float*>(args.out[i])[at] = static_cast<float>(value);
}

// Which inputs of the node the anchor's operands are, and which outputs its results; -1 where none.
struct Operands {
  std::vector<int> in, out;

  // Whether output o of the body is one of the anchor's.
  bool is_anchors(int o) const { return std::find(out.begin(), out.end(), o) != out.end(); }
};
// Those from `first` on may not be computed in the body.
Result<Operands> operands_of(const Anchored& a, size_t first) {
  Operands operands;
  for (size_t i = 0; i < a.node().inputs.size(); ++i) {
    operands.in.push_back(a.input_of(i));
    if (i >= first && operands.in.back() < 0) return refuse(fmt::format("its operand {} is computed in the loop", i));
  }
  for (int32_t i = 0; i < a.node().num_outputs; ++i) operands.out.push_back(a.output_of(i));
  return operands;
}

class NormBase : public Kernel {
 public:
  std::string detail() const override { return detail_; }

 protected:
  NormBase(const Anchored& a, const Shape& s, Operands operands, DType dtype)
      : shape_(s), dtype_(dtype), in_(std::move(operands.in)), out_(std::move(operands.out)) {
    if (a.body.nodes().size() > 1) detail_ = fmt::format("with a loop of {} nodes", a.body.nodes().size() - 1);
  }
  const float* input(const KernelArgs& args, size_t operand) const {
    return static_cast<const float*>(args.in[in_[operand]]);
  }
  Elements elements(const void* tensor) const { return Elements(tensor, dtype_); }

  Shape shape_;
  DType dtype_;  // of x, y and their gradients
  std::vector<int> in_, out_;
  std::string detail_;
};

class Forward : public NormBase {
 public:
  static Status takes(const Anchored& a, const Shape& s) {
    DS_ASSIGN(const Operands operands, operands_of(a, 0));
    return loop_of(a, s, operands, Purpose::kAsk).status();
  }
  static KernelOrError make(const Anchored& a, const Shape& s) {
    DS_ASSIGN(Operands operands, operands_of(a, 0));
    DS_ASSIGN(std::optional<Loop> loop, loop_of(a, s, operands, Purpose::kRun));
    auto k = std::unique_ptr<Forward>(new Forward(a, s, std::move(operands), a.body.type(a.node().inputs[0]).dtype));
    k->training_ = a.node().op_name() == "batch_norm";
    if (k->training_) k->momentum_ = a.node().attrs.number("momentum");
    k->epsilon_ = a.node().attrs.number("epsilon");
    k->loop_ = std::move(loop);
    return std::unique_ptr<Kernel>(std::move(k));
  }

  size_t scratch_bytes() const override { return static_cast<size_t>(2 * shape_.channels()) * sizeof(float); }

  Status run(const KernelArgs& args) const override {
    auto* factor = static_cast<float*>(args.scratch);
    float* shift = factor + shape_.channels();
    std::vector<const void*> in;
    std::vector<void*> out;
    if (loop_) loop_->bind(args, std::array<const void*, 3>{factor, shift, nullptr}, in, out);
    // Statistics need all images of a channel; given ones leave each image to itself.
    const int64_t tasks = training_ ? shape_.blocks : shape_.blocks * shape_.n;
    if (!training_) given_statistics(args, factor, shift);
    parallel_for(tasks, training_ ? 1 : std::max<int64_t>(1, 16384 / shape_.plane()), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        if (training_) statistics(args, t, factor, shift);
        if (!loop_ || out[0] == nullptr) continue;
        const auto apply = [&](int64_t at) { loop_->program.run(in, out, at, at + shape_.plane(), nullptr); };
        if (!training_) apply(t * shape_.plane());
        // Backwards: the last images are still in cache.
        for (int64_t i = training_ ? shape_.n : 0; i-- > 0;) apply(shape_.offset(i, t));
      }
    });
    return {};
  }

 private:
  using NormBase::NormBase;

  // y and what is made of it; none where nobody reads that.
  static Result<std::optional<Loop>> loop_of(const Anchored& a, const Shape& s, const Operands& operands,
                                             Purpose purpose) {
    const TensorType& x = a.body.type(a.node().inputs[0]);
    Builder builder(a.body.registry());
    Status failed;
    Extractor extractor(a, builder, [&](int32_t output) {
      if (output != 0) failed = refuse("the loop reads the statistics");
      const Expr wide = ops::cast(extractor.add_input(x, operands.in[0]), DType::kF32);
      return ops::cast(
          wide * extractor.add_input(s.per_channel(x), kFactor) + extractor.add_input(s.per_channel(x), kShift),
          x.dtype);
    });
    std::vector<int> outputs;
    for (int o = 0; o < static_cast<int>(a.body.outputs().size()); ++o) {
      if (o != operands.out[0] && operands.is_anchors(o)) continue;
      builder.output(std::to_string(o), extractor.value(a.body.outputs()[static_cast<size_t>(o)].value));
      outputs.push_back(o);
    }
    DS_TRY(failed);
    if (outputs.empty()) return std::optional<Loop>();
    DS_ASSIGN(Loop loop, Loop::make(builder, extractor.sources(), std::move(outputs), s.block, purpose));
    return std::optional<Loop>(std::move(loop));
  }

  void given_statistics(const KernelArgs& args, float* factor, float* shift) const {
    const float *scale = input(args, 1), *bias = input(args, 2), *mean = input(args, 3), *var = input(args, 4);
    for (int64_t c = 0; c < shape_.channels(); ++c) {
      factor[c] = scale[c] / std::sqrt(var[c] + static_cast<float>(epsilon_));
      shift[c] = bias[c] - mean[c] * factor[c];
    }
  }

  void statistics(const KernelArgs& args, int64_t b, float* factor, float* shift) const {
    const float *scale = input(args, 1), *bias = input(args, 2), *mean_in = input(args, 3), *var_in = input(args, 4);
    const Elements x = elements(args.in[in_[0]]);
    float buffer[kChunk];
    const int64_t block = shape_.block, most = std::max<int64_t>(1, kChunk / block);  // pixels of a chunk
    double mean[kMostLanes] = {}, squares[kMostLanes] = {}, count = 0;
    for (int64_t i = 0; i < shape_.n; ++i)
      for (int64_t p = 0; p < shape_.pixels; p += most) {
        const int64_t pixels = std::min(most, shape_.pixels - p);
        const float* from = x.at(shape_.offset(i, b) + p * block, pixels * block, buffer);
        double sum[kMostLanes] = {}, deviations[kMostLanes] = {};
        float chunk_mean[kMostLanes];
        const auto m = static_cast<double>(pixels);
        add_rows(from, pixels * block, block, sum);
        for (int64_t j = 0; j < block; ++j) chunk_mean[j] = static_cast<float>(sum[j] / m);
        add_squared_rows(from, pixels * block, block, chunk_mean, deviations);
        for (int64_t j = 0; j < block; ++j) {
          const double delta = chunk_mean[j] - mean[j];
          mean[j] += delta * m / (count + m);
          squares[j] += deviations[j] + delta * delta * count * m / (count + m);
        }
        count += m;
      }
    for (int64_t j = 0; j < block; ++j) {
      const int64_t c = b * block + j;
      const double var = squares[j] / count, rstd = 1 / std::sqrt(var + epsilon_);
      const double unbiased = count > 1 ? squares[j] / (count - 1) : var;
      factor[c] = static_cast<float>(rstd) * scale[c];
      shift[c] = bias[c] - static_cast<float>(mean[j]) * factor[c];
      store(args, out_[1], c, mean[j]);
      store(args, out_[2], c, rstd);
      store(args, out_[3], c, (1 - momentum_) * mean_in[c] + momentum_ * mean[j]);
      store(args, out_[4], c, (1 - momentum_) * var_in[c] + momentum_ * unbiased);
    }
  }

  bool training_ = true;
  double momentum_ = 0, epsilon_ = 0;
  std::optional<Loop> loop_;
};

class Backward : public NormBase {
 public:
  static Status takes(const Anchored& a, const Shape& s) {
    DS_ASSIGN(const Operands operands, operands_of(a, 1));
    Written w(a, operands);
    if (w.computes_dy) w.keep_dy(operands);
    DS_TRY(before_loop(a, s, operands, w, Purpose::kAsk).status());
    return operands.out[0] < 0 ? Status() : gradient_loop(a, s, operands, w, Purpose::kAsk).status();
  }

  static KernelOrError make(const Anchored& a, const Shape& s) {
    DS_ASSIGN(const Operands operands, operands_of(a, 1));
    auto k = std::unique_ptr<Backward>(new Backward(a, s, operands, a.body.type(a.node().inputs[1]).dtype));
    Written w(a, operands);
    if (w.computes_dy && few_inputs(a) &&
        (operands.out[0] < 0 || gradient_loop(a, s, operands, w, Purpose::kAsk).ok())) {
      k->sums_ = sums_loop(a, s, operands, w);
      k->again_ = k->sums_.has_value();
    }
    if (w.computes_dy && !k->again_) w.keep_dy(operands);
    k->dy_output_ = w.dy_output;
    if (!k->again_) k->sums_ = sums_loop(a, s, operands, w);
    if (!k->sums_) {
      DS_ASSIGN(k->before_, before_loop(a, s, operands, w, Purpose::kRun));
    }
    if (operands.out[0] >= 0) {
      DS_ASSIGN(k->gradient_, gradient_loop(a, s, operands, w, Purpose::kRun));
    }
    return std::unique_ptr<Kernel>(std::move(k));
  }

  size_t scratch_bytes() const override {
    const size_t kept =
        keeps_dy() ? static_cast<size_t>(shape_.n * shape_.blocks * shape_.plane()) * size_of(dtype_) : 0;
    return static_cast<size_t>(shape_.channels()) * (3 * sizeof(float) + 2 * sizeof(double)) + kept;
  }

  Status run(const KernelArgs& args) const override {
    const int64_t channels = shape_.channels();
    auto* sums = static_cast<double*>(args.scratch);
    auto* factor = reinterpret_cast<float*>(sums + 2 * channels);
    float *shift = factor + channels, *slope = shift + channels;
    std::vector<const void*> before_in, in;
    std::vector<void*> before_out, out;
    void* const kept = slope + channels;  // dy, where no output has a place for it
    if (before_) before_->bind(args, {}, before_in, before_out);
    if (before_ && keeps_dy()) before_out.back() = kept;
    std::vector<const void*> sums_in;
    std::vector<void*> sums_out;
    if (sums_) {
      sums_->bind(args, std::array<const void*, 4>{nullptr, nullptr, nullptr, input(args, 3)}, sums_in, sums_out);
      if (keeps_dy()) sums_out[sums_out.size() - 3] = kept;
    }
    if (gradient_) gradient_->bind(args, std::array<const void*, 3>{factor, shift, slope}, in, out);
    const float* mean = input(args, 3);
    const Elements x = elements(args.in[in_[1]]);
    const Elements dy = elements(in_[0] >= 0 ? args.in[in_[0]] : dy_output_ >= 0 ? args.out[dy_output_] : kept);
    const int64_t most = std::max<int64_t>(1, kChunk / shape_.block) * shape_.block;
    parallel_for(shape_.blocks, 1, [&](int64_t begin, int64_t end) {
      float buffers[2][kChunk];
      for (int64_t b = begin; b < end; ++b) {
        const int64_t c = b * shape_.block;
        for (int64_t k : {int64_t{0}, channels}) std::fill_n(sums + k + c, shape_.block, 0.0);
        for (int64_t i = 0; sums_ && i < shape_.n; ++i)
          sums_->program.run(sums_in, sums_out, shape_.offset(i, b), shape_.offset(i, b) + shape_.plane(), sums);
        for (int64_t i = 0; !sums_ && i < shape_.n; ++i)
          for (int64_t p = 0; p < shape_.plane(); p += most) {
            const int64_t at = shape_.offset(i, b) + p, count = std::min(most, shape_.plane() - p);
            if (before_) before_->program.run(before_in, before_out, at, at + count, nullptr);
            add_dot_rows(dy.at(at, count, buffers[0]), x.at(at, count, buffers[1]), mean + c, count, shape_.block,
                         sums + c, sums + channels + c);
          }
        coefficients(args, b, sums, factor, shift, slope);
        if (!gradient_ || out[0] == nullptr) continue;
        for (int64_t i = shape_.n; i-- > 0;) {  // backwards: the last images are still in cache
          const int64_t at = shape_.offset(i, b);
          gradient_->program.run(in, out, at, at + shape_.plane(), nullptr);
        }
      }
    });
    return {};
  }

 private:
  using NormBase::NormBase;

  // What the loop before the sums writes.
  struct Written {
    std::vector<int> outputs;  // of the node; -1: dy, which is kept elsewhere
    int dy_output = -1;        // that dy is in, so that the second pass need not compute it
    bool computes_dy = false;  // which is no input, and that nobody reads

    Written(const Anchored& a, const Operands& operands) {
      for (int o = 0; o < static_cast<int>(a.body.outputs().size()); ++o) {
        if (operands.is_anchors(o)) continue;
        if (a.body.outputs()[static_cast<size_t>(o)].value == a.node().inputs[0]) dy_output = o;
        outputs.push_back(o);
      }
      computes_dy = dy_output < 0 && operands.in[0] < 0;
    }
    // In the place of dx, if that is written at all.
    void keep_dy(const Operands& operands) { outputs.push_back(dy_output = operands.out[0]); }
    Value value(const Anchored& a, size_t i) const {
      const bool dy = outputs[i] < 0 || outputs[i] == dy_output;
      return dy ? a.node().inputs[0] : a.body.outputs()[static_cast<size_t>(outputs[i])].value;
    }
  };

  static Result<std::optional<Loop>> before_loop(const Anchored& a, const Shape& s, const Operands& operands,
                                                 const Written& w, Purpose purpose) {
    Builder builder(a.body.registry());
    Status failed;
    Extractor extractor(a, builder, [&](int32_t) {
      failed = refuse("the loop reads what the gradient gives");
      return Expr();
    });
    for (size_t i = 0; i < w.outputs.size(); ++i) {
      const Expr value = extractor.value(w.value(a, i));
      if (!failed.ok()) return failed;
      builder.output(std::to_string(i), value);
    }
    if (w.outputs.empty()) return std::optional<Loop>();
    DS_ASSIGN(Loop loop, Loop::make(builder, extractor.sources(), w.outputs, s.block, purpose));
    return std::optional<Loop>(std::move(loop));
  }

  // dx from dy, which is read where it was written, or computed again.
  static Result<Loop> gradient_loop(const Anchored& a, const Shape& s, const Operands& operands, const Written& w,
                                    Purpose purpose) {
    const TensorType& x = a.body.type(a.node().inputs[1]);
    Builder builder(a.body.registry());
    Extractor extractor(a, builder, [](int32_t) { return Expr(); });
    Expr g =
        w.dy_output >= 0 ? extractor.add_input(x, Loop::kOutputs + w.dy_output) : extractor.value(a.node().inputs[0]);
    const auto wide = [](Expr e) { return ops::cast(e, DType::kF32); };
    Expr slope = wide(extractor.add_input(x, operands.in[1])) * extractor.add_input(s.per_channel(x), kSlope) +
                 extractor.add_input(s.per_channel(x), kShift);
    builder.output("dx", ops::cast(wide(g) * extractor.add_input(s.per_channel(x), kFactor) + slope, x.dtype));
    return Loop::make(builder, extractor.sources(), {operands.out[0]}, s.block, purpose);
  }

  // Whether dy, of one tensor of x's size beside x, is as cheap to compute again as to write and read.
  static bool few_inputs(const Anchored& a) {
    Builder builder(a.body.registry());
    Extractor extractor(a, builder, [](int32_t) { return Expr(); });
    extractor.value(a.node().inputs[0]);
    int large = 0;
    for (int source : extractor.sources()) {
      const Value v = a.body.inputs()[static_cast<size_t>(source)].value;
      large += v != a.node().inputs[1] && a.body.type(v).dims == a.body.type(a.node().inputs[1]).dims;
    }
    return large <= 1;
  }

  // The loop before the gradient with both sums in it, where that is machine code.
  static std::optional<Loop> sums_loop(const Anchored& a, const Shape& s, const Operands& operands, const Written& w) {
    const TensorType& x = a.body.type(a.node().inputs[1]);
    Builder builder(a.body.registry());
    Extractor extractor(a, builder, [](int32_t) { return Expr(); });
    std::vector<int> outputs = w.outputs;
    for (size_t i = 0; i < outputs.size(); ++i) builder.output(std::to_string(i), extractor.value(w.value(a, i)));
    const Expr dy = ops::cast(extractor.value(a.node().inputs[0]), DType::kF32);
    const Expr wide = ops::cast(extractor.value(a.node().inputs[1]), DType::kF32);
    const Expr dot = dy * (wide - extractor.add_input(s.per_channel(x), kMean));
    Dims axes;
    for (int64_t i = 0; i + 1 < x.rank(); ++i)
      if (i != 1) axes.push_back(i);
    for (const Expr& e : {dy, dot}) {
      builder.output(std::to_string(outputs.size()), builder.op("sum", {e}, {{"axes", axes}, {"keepdims", true}}));
      outputs.push_back(-1);
    }
    Result<Loop> loop = Loop::make(builder, extractor.sources(), std::move(outputs), s.block, Purpose::kRun);
    if (!loop.ok() || !loop->program.has_code_for_sums()) return {};
    return std::move(*loop);
  }

  // Whether dy is computed, and no output has a place for it.
  bool keeps_dy() const { return in_[0] < 0 && dy_output_ < 0 && !again_; }

  // dx = scale * rstd * (dy - mean(dy) - xhat * mean(dy * xhat)) = factor * dy + slope * x + shift
  void coefficients(const KernelArgs& args, int64_t b, const double* sums, float* factor, float* shift,
                    float* slope) const {
    const float *scale = input(args, 2), *mean = input(args, 3), *rstd = input(args, 4);
    const auto count = static_cast<double>(shape_.n * shape_.pixels);
    for (int64_t c = b * shape_.block; c < (b + 1) * shape_.block; ++c) {
      const double sum = sums[c], dot = sums[shape_.channels() + c];
      const double f = static_cast<double>(scale[c]) * rstd[c], k = -f * dot * rstd[c] * rstd[c] / count;
      factor[c] = static_cast<float>(f);
      slope[c] = static_cast<float>(k);
      shift[c] = static_cast<float>(-f * sum / count - k * mean[c]);
      store(args, out_[1], c, dot * rstd[c]);
      store(args, out_[2], c, sum);
    }
  }

  int dy_output_ = -1;
  bool again_ = false;                            // dy is computed for the sums and once more for dx
  std::optional<Loop> before_, gradient_, sums_;  // before_ or sums_
};

}  // namespace

Status takes_blocked_batch_norm(const NodeInfo& node) {
  DS_ASSIGN(const Anchored a, find_anchor(node));
  const std::string& op = a.node().op_name();
  if (!op.starts_with("batch_norm")) return refuse("the heavy op is " + op);
  const int64_t block = a.node().attrs.integer("channel_block");
  if (block == 0) return refuse("the channels are not blocked");
  if (block > kMostLanes) return refuse(fmt::format("channel_block {} is above {}", block, kMostLanes));
  const TensorType& x = a.body.type(a.node().inputs[0]);
  if (!(x.dtype == DType::kF32 || x.dtype == DType::kBF16 || x.dtype == DType::kF16))
    return refuse(fmt::format("dtype {} is not supported", to_string(x.dtype)));
  for (size_t i = 0; i < a.node().inputs.size(); ++i) {
    const DType dtype = a.body.type(a.node().inputs[i]).dtype;
    const bool is_x = i == 0 || (i == 1 && op == "batch_norm_grad");
    if (dtype != (is_x ? x.dtype : DType::kF32))
      return refuse(fmt::format("operand {} of dtype {} beside {}", i, to_string(dtype), to_string(x.dtype)));
  }
  if (x.num_elements() == 0) return refuse("the input is empty");
  return op == "batch_norm_grad" ? Backward::takes(a, shape_of(a)) : Forward::takes(a, shape_of(a));
}

KernelOrError make_blocked_batch_norm(const NodeInfo& node) {
  DS_ASSIGN(const Anchored a, find_anchor(node));
  const bool backward = a.node().op_name() == "batch_norm_grad";
  return backward ? Backward::make(a, shape_of(a)) : Forward::make(a, shape_of(a));
}

}  // namespace deepseek::backends::cpu
