// The body of a `fused` node that has one heavy op in it, its anchor, taken apart: what is element-wise before and
// after it becomes graphs for tile programs. Test: tests/backends_cpu/kernels_test.cc
#pragma once

#include <functional>
#include <vector>

#include "backends/cpu/kernel.h"
#include "backends/cpu/tile_program.h"
#include "graph/builder.h"

namespace deepseek::backends::cpu {

struct Anchored {
  graph::Graph body;
  int32_t anchor = -1;  // node of the body

  const graph::Node& node() const { return body.nodes()[static_cast<size_t>(anchor)]; }
  // The input of the fused node that the anchor's operand is, or -1 where it is computed in the body.
  int input_of(size_t operand) const;
  // The number of the fused node's output that is the anchor's output i, or -1.
  int output_of(int32_t i) const;
};
// Of a `fused` node, or of a node that is alone. Refuses a body with no heavy op or with several.
Result<Anchored> find_anchor(const NodeInfo& node);

// Copies what a value of the body is computed from into another graph: nodes that are not the anchor, and the inputs
// that they read. For the anchor's outputs `make` gives what stands for them.
class Extractor {
 public:
  Extractor(const Anchored& anchored, graph::Builder& to, std::function<graph::Expr(int32_t output)> make);
  graph::Expr value(graph::Value v);
  // A further input of the new graph, for which the caller provides memory: `source` tells it from the others.
  graph::Expr add_input(const graph::TensorType& type, int source);
  // Where each input of the new graph comes from: an input of the fused node, or what add_input() was given.
  const std::vector<int>& sources() const { return sources_; }

 private:
  const Anchored& anchored_;
  graph::Builder& to_;
  std::function<graph::Expr(int32_t)> make_;
  std::vector<graph::Expr> map_;
  std::vector<int> sources_;
};

// A tile program beside a heavy op, and where its operands are among those of the node.
struct Loop {
  static constexpr int kOutputs = 1000;  // sources from here on are outputs of the node

  TileProgram program;
  // By operand of the program. A source of -1 - i is vector i of bind(); an output of -1 is none.
  std::vector<int> sources, outputs;

  // The builder's graph as a loop; refuses one that can't walk pixels of `block` channels.
  static Result<Loop> make(graph::Builder& builder, std::vector<int> sources, std::vector<int> outputs, int64_t block,
                           Purpose purpose);
  // Operands for one run of the node.
  void bind(const KernelArgs& args, std::span<const void* const> vectors, std::vector<const void*>& in,
            std::vector<void*>& out) const;
};

}  // namespace deepseek::backends::cpu
