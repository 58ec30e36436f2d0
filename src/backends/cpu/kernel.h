// What an implementation of an op on the CPU is. For each op there is an ordered list, fastest first, reference last;
// a factory either returns a kernel for this very node (shapes fixed) or refuses with a reason.
// Test: tests/backends_cpu/samples_test.cc
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"

namespace deepseek::backends::cpu {

struct KernelArgs {
  std::span<const void* const> in;
  std::span<void* const> out;  // null for an output that nobody reads
  void* scratch;               // 64-byte aligned, scratch_bytes() long
};

class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual Status run(const KernelArgs& args) const = 0;
  virtual size_t scratch_bytes() const { return 0; }
  // True if output `out` may be written over input `in` (same bytes) while it is read.
  virtual bool in_place(int out, int in) const { return false; }
  virtual std::string detail() const { return {}; }
};

struct NodeInfo {
  graph::OpContext context;
  std::vector<graph::TensorType> outputs;
  std::vector<bool> used;  // which outputs somebody reads
};

using KernelOrRefusal = Result<std::unique_ptr<Kernel>>;

struct Implementation {
  std::string_view name;
  KernelOrRefusal (*make)(const NodeInfo&);
};

// The list for an op; the reference implementation is always its last entry.
std::vector<Implementation> implementations(std::string_view op);

// One entry per file: a family's factories.
KernelOrRefusal make_reference(const NodeInfo&);
KernelOrRefusal make_elementwise(const NodeInfo&);
KernelOrRefusal make_reduce(const NodeInfo&);
KernelOrRefusal make_onednn_matmul(const NodeInfo&);
KernelOrRefusal make_onednn_conv(const NodeInfo&);
KernelOrRefusal make_copy(const NodeInfo&);
KernelOrRefusal make_softmax(const NodeInfo&);
KernelOrRefusal make_batch_norm(const NodeInfo&);
KernelOrRefusal make_batch_norm_inference(const NodeInfo&);
KernelOrRefusal make_layer_norm(const NodeInfo&);
KernelOrRefusal make_max_pool(const NodeInfo&);
KernelOrRefusal make_max_pool_grad(const NodeInfo&);
KernelOrRefusal make_avg_pool(const NodeInfo&);

inline Status refuse(std::string reason) { return Status(ErrorCode::kUnsupported, std::move(reason)); }

// A kernel from a callable.
template <class F>
class LambdaKernel : public Kernel {
 public:
  explicit LambdaKernel(F f) : f_(std::move(f)) {}
  Status run(const KernelArgs& args) const override { return f_(args); }

 private:
  F f_;
};
template <class F>
std::unique_ptr<Kernel> make_kernel(F f) {
  return std::make_unique<LambdaKernel<F>>(std::move(f));
}

}  // namespace deepseek::backends::cpu
