// The CPU backend: passes, choice of kernels, memory plan, execution. Test: tests/backends_cpu/program_test.cc
#pragma once

#include "backends/cpu/peak.h"
#include "base/memory.h"
#include "runtime/program.h"

namespace deepseek::backends::cpu {

class CpuBackend : public runtime::Backend {
 public:
  std::string name() const override { return "cpu"; }
  Result<std::shared_ptr<const runtime::Program>> compile(const graph::Graph& graph,
                                                          const runtime::CompileOptions& options) const override;
  size_t memory_bytes() const override { return machine_memory(); }
  runtime::Peak measure_peak() const override { return cpu::measure_peak(); }
};

// "avx512_bf16", "avx512", "avx2" or "sse2": the best set of instructions that this CPU and our kernels share.
std::string isa_name();

}  // namespace deepseek::backends::cpu
