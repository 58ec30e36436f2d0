// What an implementation of an op on the CPU is. For each op there is an ordered list, fastest first, reference last;
// each says of a node, its shapes fixed, whether it takes it, or why not, and only then makes a kernel of it.
// Test: tests/ops/samples_test.cc, tests/backends_cpu/kernels_test.cc
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"
#include "passes/target.h"
#include "runtime/program.h"

namespace deepseek::backends::cpu {

struct KernelArgs {
  std::span<const void* const> in;
  std::span<void* const> out;  // null for an output that nobody reads
  void* scratch;               // 64-byte aligned, scratch_bytes() long
  void* prepared = nullptr;    // 64-byte aligned, prepared_bytes() long, as prepare() left it
};

class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual Status run(const KernelArgs& args) const = 0;
  virtual size_t scratch_bytes() const { return 0; }
  // What several runs share: made once before them of the inputs that are NodeInfo::fixed, the only ones it may read.
  virtual Status prepare(const KernelArgs&) const { return {}; }
  virtual size_t prepared_bytes() const { return 0; }
  // True if output `out` may be written over input `in` (same bytes) while it is read.
  virtual bool in_place(int out, int in) const { return false; }
  // False for a fixed input that only prepare() reads; it may be null in a run.
  virtual bool reads(int in) const { return true; }
  virtual std::string detail() const { return {}; }
};

struct NodeInfo {
  graph::OpContext context;
  std::vector<graph::TensorType> outputs;
  std::vector<bool> used;                            // which outputs somebody reads
  const runtime::CompileOptions* options = nullptr;  // while compiling only; a kernel does not keep it
  std::vector<bool> fixed = {};  // which inputs stay the same from prepare() on; empty: none, and nobody calls it

  bool is_fixed(size_t input) const { return input < fixed.size() && fixed[input]; }
};

// The body of a `fused` node; of another one, a graph of it alone. Inputs and outputs are those of the node.
Result<graph::Graph> body_of(const NodeInfo& node);

using KernelOrError = Result<std::unique_ptr<Kernel>>;

struct Implementation {
  std::string_view name;
  // kUnsupported with the reason where it does not take the node. Cheap: passes ask at every step. It makes no
  // primitives, code or programs, and no memory of the size of an operand.
  Status (*takes)(const NodeInfo&);
  // Of a node that it takes; what fails then is an error, and no refusal.
  KernelOrError (*make)(const NodeInfo&);
};

// The list for an op; the reference implementation is always its last entry.
std::vector<Implementation> implementations(const graph::OpDef& op);

// implementation.takes(node), but what the options disable takes nothing, and nodes with an operand or result that has
// no elements are for the reference alone: kernels need not care for loops over nothing. All who choose ask this.
Status takes(const Implementation& implementation, const NodeInfo& node);
bool is_empty(const NodeInfo& node);

// Whether a question or a kernel is at hand: for the former no machine code is made.
enum class Purpose { kAsk, kRun };

// Of every node of its op.
Status takes_all(const NodeInfo&);
// By family, in its file: whether it takes a node, and the kernel.
KernelOrError make_reference(const NodeInfo&);
Status takes_elementwise(const NodeInfo&);
KernelOrError make_elementwise(const NodeInfo&);
Status takes_reduce(const NodeInfo&);
KernelOrError make_reduce(const NodeInfo&);
Status takes_gemm(const NodeInfo&);
KernelOrError make_gemm(const NodeInfo&);
Status takes_onednn_matmul(const NodeInfo&);
KernelOrError make_onednn_matmul(const NodeInfo&);
Status takes_onednn_conv(const NodeInfo&);
KernelOrError make_onednn_conv(const NodeInfo&);
Status takes_blocked_conv(const NodeInfo&);  // and its gradients
KernelOrError make_blocked_conv(const NodeInfo&);
Status takes_winograd_conv(const NodeInfo&);  // and its gradients
KernelOrError make_winograd_conv(const NodeInfo&);
Status takes_depthwise_conv(const NodeInfo&);  // and its gradients
KernelOrError make_depthwise_conv(const NodeInfo&);
KernelOrError make_copy(const NodeInfo&);
Status takes_attention(const NodeInfo&);  // and its gradient
KernelOrError make_attention(const NodeInfo&);
Status takes_softmax(const NodeInfo&);
KernelOrError make_softmax(const NodeInfo&);
Status takes_batch_norm(const NodeInfo&);
KernelOrError make_batch_norm(const NodeInfo&);
Status takes_batch_norm_inference(const NodeInfo&);
KernelOrError make_batch_norm_inference(const NodeInfo&);
Status takes_blocked_batch_norm(const NodeInfo&);  // and its gradient, and as inferred
KernelOrError make_blocked_batch_norm(const NodeInfo&);
Status takes_layer_norm(const NodeInfo&);
KernelOrError make_layer_norm(const NodeInfo&);
Status takes_max_pool(const NodeInfo&);
KernelOrError make_max_pool(const NodeInfo&);
Status takes_max_pool_grad(const NodeInfo&);
KernelOrError make_max_pool_grad(const NodeInfo&);
Status takes_avg_pool(const NodeInfo&);
KernelOrError make_avg_pool(const NodeInfo&);
KernelOrError make_gather(const NodeInfo&);  // gather, take_along_axis
Status takes_scatter(const NodeInfo&);       // their adjoints
KernelOrError make_scatter(const NodeInfo&);
KernelOrError make_one_hot(const NodeInfo&);
KernelOrError make_iota(const NodeInfo&);
KernelOrError make_arg_extremum(const NodeInfo&);
KernelOrError make_top_k(const NodeInfo&);
KernelOrError make_cumsum(const NodeInfo&);
KernelOrError make_random(const NodeInfo&);  // random_uniform, dropout
Status takes_group_norm(const NodeInfo&);    // and its gradient
KernelOrError make_group_norm(const NodeInfo&);
KernelOrError make_scan(const NodeInfo&);
Status takes_ctc(const NodeInfo&);
KernelOrError make_ctc(const NodeInfo&);
// Half floats by way of f32, where an f32 kernel of the op exists.
Status takes_upcast(const NodeInfo&);
KernelOrError make_upcast(const NodeInfo&);

// The channel blocks in which the node, a conv or one of its gradients, is faster by micro-GEMM; zeros if it isn't.
passes::ChannelBlocks channel_blocks(const NodeInfo& node);

// Whether the options rule the implementation out.
bool is_disabled(const runtime::CompileOptions& options, std::string_view implementation);

// A graph compiled for use inside a kernel, on memory that the kernel owns.
class Body {
 public:
  virtual ~Body() = default;
  virtual size_t arena_bytes() const = 0;
  virtual std::vector<runtime::NodeReport> report() const = 0;
  // Once before the runs that share an arena and the fixed inputs, which are the only ones it reads.
  virtual Status prepare(std::span<void* const> inputs, void* arena) const = 0;
  // All inputs and outputs of the graph in order, none null; an output overlaps no other operand.
  virtual Status run_body(std::span<void* const> inputs, std::span<void* const> outputs, void* arena) const = 0;
};
// `fixed`: which inputs stay the same over many runs. What depends on them alone is computed by prepare().
Result<std::shared_ptr<const Body>> compile_body(const graph::Graph& graph, runtime::CompileOptions options,
                                                 const std::vector<bool>& fixed);

inline Status refuse(std::string reason) { return Status(ErrorCode::kUnsupported, std::move(reason)); }

// A kernel from a callable.
template <class F>
class LambdaKernel : public Kernel {
 public:
  explicit LambdaKernel(F f, bool in_place) : f_(std::move(f)), in_place_(in_place) {}
  Status run(const KernelArgs& args) const override { return f_(args); }
  bool in_place(int, int) const override { return in_place_; }

 private:
  F f_;
  bool in_place_;
};
// `in_place`: any output may be written over any input.
template <class F>
std::unique_ptr<Kernel> make_kernel(F f, bool in_place = false) {
  return std::make_unique<LambdaKernel<F>>(std::move(f), in_place);
}

}  // namespace deepseek::backends::cpu
