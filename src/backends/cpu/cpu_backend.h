// The CPU backend. A buffer is host memory: uploading and downloading copy nothing.
// Test: tests/backends_cpu/program_test.cc, tests/conformance
#pragma once

#include "runtime/arena_pool.h"
#include "runtime/backend.h"

namespace deepseek::backends::cpu {

class CpuBackend : public runtime::Backend {
 public:
  std::string name() const override { return "cpu"; }
  std::map<std::string, std::string> properties() const override;
  Result<runtime::Buffer> make_buffer(const graph::TensorType& type) const override;
  Result<runtime::Buffer> upload(const graph::Tensor& value) const override;
  Result<graph::Tensor> download(const runtime::Buffer& buffer) const override;
  bool host_memory() const override { return true; }
  Result<std::shared_ptr<const runtime::Program>> compile(const graph::Graph& graph,
                                                          const runtime::CompileOptions& options) const override;
  size_t memory_bytes() const override;
  runtime::MemoryUse memory_use() const override;
  void set_memory_limit(size_t bytes) const override;
  bool has_fast(DType dtype) const override;
  runtime::Peak measure_peak() const override;
};

// The only one: programs and buffers belong to it.
const CpuBackend* cpu_backend();
// As "cpu".
Status register_cpu();

// Of all programs of the process.
runtime::ArenaPool& arena_pool();

// "avx512_bf16", "avx512", "avx2" or "sse2": the best set of instructions that this CPU and our kernels share.
std::string isa_name();

}  // namespace deepseek::backends::cpu
