// Half floats on f32 kernels: operands are upcast into scratch memory, the kernel runs, results are rounded to nearest
// even; fixed operands are upcast once. Comes after the implementations that take half floats themselves.
#include <algorithm>

#include "backends/cpu/kernel.h"
#include "backends/cpu/tile_ops.h"
#include "base/threads.h"

namespace deepseek::backends::cpu {

using graph::TensorType;

namespace {

bool is_half(const TensorType& type) { return type.dtype == DType::kF16 || type.dtype == DType::kBF16; }
TensorType wide(const TensorType& type) { return is_half(type) ? type.with_dtype(DType::kF32) : type; }

void convert(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t n) {
  const TileFn fn = tile_fn(TileOp::kCast, from_dtype, to_dtype);
  const auto step = [](DType d) { return static_cast<int64_t>(size_of(d)); };
  parallel_for(n, 65536, [&](int64_t begin, int64_t end) {
    const void* in[] = {static_cast<const char*>(from) + begin * step(from_dtype)};
    fn(in, static_cast<char*>(to) + begin * step(to_dtype), end - begin);
  });
}

class UpcastKernel : public Kernel {
 public:
  UpcastKernel(const NodeInfo& node, std::string name, std::unique_ptr<Kernel> kernel)
      : name_(std::move(name)), kernel_(std::move(kernel)), inputs_(node.context.inputs), outputs_(node.outputs) {
    scratch_ = aligned(kernel_->scratch_bytes());
    prepared_ = aligned(kernel_->prepared_bytes());
    for (size_t i = 0; i < inputs_.size(); ++i) {
      fixed_.push_back(node.is_fixed(i));
      add_place(inputs_[i], fixed_[i] ? prepared_ : scratch_);
    }
    for (const TensorType& t : outputs_) add_place(t, scratch_);
  }
  size_t scratch_bytes() const override { return scratch_; }
  size_t prepared_bytes() const override { return prepared_; }
  std::string detail() const override {
    const std::string inner = kernel_->detail();
    return inner.empty() ? name_ : name_ + ": " + inner;
  }
  Status prepare(const KernelArgs& args) const override {
    const std::vector<const void*> in = upcast(args, true);
    return kernel_->prepare({in, args.out, args.scratch, args.prepared});
  }
  Status run(const KernelArgs& args) const override {
    char* const scratch = static_cast<char*>(args.scratch);
    const std::vector<const void*> in = upcast(args, false);
    std::vector<void*> out(args.out.begin(), args.out.end());
    for (size_t o = 0; o < out.size(); ++o)
      if (is_half(outputs_[o]) && out[o] != nullptr) out[o] = scratch + offsets_[in.size() + o];
    DS_TRY(kernel_->run({in, out, scratch, args.prepared}));
    for (size_t o = 0; o < out.size(); ++o)
      if (is_half(outputs_[o]) && out[o] != nullptr)
        convert(out[o], DType::kF32, args.out[o], outputs_[o].dtype, outputs_[o].num_elements());
    return {};
  }

 private:
  static size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }
  void add_place(const TensorType& type, size_t& total) {
    offsets_.push_back(total);
    if (is_half(type)) total += aligned(wide(type).num_bytes());
  }
  // The wide inputs, after computing those that are fixed or those that are not.
  std::vector<const void*> upcast(const KernelArgs& args, bool fixed) const {
    std::vector<const void*> in(args.in.begin(), args.in.end());
    for (size_t i = 0; i < in.size(); ++i) {
      if (!is_half(inputs_[i])) continue;
      void* const to = static_cast<char*>(fixed_[i] ? args.prepared : args.scratch) + offsets_[i];
      if (fixed_[i] == fixed) convert(in[i], inputs_[i].dtype, to, DType::kF32, inputs_[i].num_elements());
      in[i] = to;
    }
    return in;
  }

  std::string name_;
  std::unique_ptr<Kernel> kernel_;
  std::vector<TensorType> inputs_, outputs_;
  std::vector<bool> fixed_;      // inputs
  std::vector<size_t> offsets_;  // inputs, then outputs
  size_t scratch_ = 0, prepared_ = 0;
};

}  // namespace

namespace {

// The same node of f32.
NodeInfo f32_twin(const NodeInfo& node) {
  NodeInfo f32 = node;
  for (auto* types : {&f32.context.inputs, &f32.outputs})
    for (TensorType& t : *types) t = wide(t);
  return f32;
}

// The first that takes it. Attributes and bodies that name a half float contradict the upcast operands; such kernels
// take half floats themselves or not at all.
std::optional<Implementation> find_f32(const NodeInfo& f32) {
  const std::string& op = f32.context.op->name.value;
  if (op == "scan" || op == "fused") return {};
  for (const Implementation& implementation : implementations(*f32.context.op))
    if (implementation.name != "upcast" && implementation.name != "reference" && implementation.name != "elementwise" &&
        takes(implementation, f32).ok())
      return implementation;
  return {};
}

}  // namespace

Status takes_upcast(const NodeInfo& node) {
  if (std::none_of(node.context.inputs.begin(), node.context.inputs.end(), is_half) &&
      std::none_of(node.outputs.begin(), node.outputs.end(), is_half))
    return refuse("no operand is a half float");
  return find_f32(f32_twin(node)) ? Status() : refuse("there is no f32 kernel to upcast for");
}

KernelOrError make_upcast(const NodeInfo& node) {
  const NodeInfo f32 = f32_twin(node);
  const std::optional<Implementation> implementation = find_f32(f32);
  DS_ASSIGN(std::unique_ptr<Kernel> kernel, implementation->make(f32));
  return std::unique_ptr<Kernel>(
      std::make_unique<UpcastKernel>(node, std::string(implementation->name), std::move(kernel)));
}

}  // namespace deepseek::backends::cpu
