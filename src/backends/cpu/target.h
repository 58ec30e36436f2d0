// What this backend tells passes: which nodes and bodies its kernels take, with these options.
// Test: tests/backends_cpu/program_test.cc
#pragma once

#include "passes/target.h"
#include "runtime/program.h"

namespace deepseek::backends::cpu {

class CpuTarget : public passes::Target {
 public:
  // `options` outlive the target.
  explicit CpuTarget(const runtime::CompileOptions& options) : options_(options) {}
  bool takes(const graph::Graph& graph, const graph::Node& node) const override;
  bool takes_body(const graph::Graph& body) const override;
  bool is_loop_op(const graph::Graph& graph, const graph::Node& node) const override;
  passes::ChannelBlocks channel_blocks(const graph::Graph& graph, const graph::Node& node) const override;
  passes::FusedLoops fused_loops(const graph::Node& node) const override;
  bool opens_norm(const graph::Node& node) const override;

 private:
  const runtime::CompileOptions& options_;
};

}  // namespace deepseek::backends::cpu
