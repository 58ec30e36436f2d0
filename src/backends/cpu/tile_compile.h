// From a graph to a loop: operands, instructions in registers, sums, and the loops that they are walked in. Machine code
// and affine programs (tile_affine.cc) are made last, and only of what is to run.
// Test: tests/ops/samples_test.cc, tests/backends_cpu/takes_test.cc
#pragma once

#include <optional>
#include <vector>

#include "backends/cpu/tile_program.h"
#include "passes/predicates.h"

namespace deepseek::backends::cpu {

inline bool is_half(DType dtype) { return dtype == DType::kF16 || dtype == DType::kBF16; }
// What elements are in tiles.
inline DType compute_dtype(DType dtype) { return is_half(dtype) ? DType::kF32 : dtype; }
using passes::is_sum;

struct TileProgram::Compiler {
  Compiler(TileProgram& p, const graph::Graph& b, Purpose why);
  Status run(int64_t max_period);

  // An f32 product that only one sum or difference reads is computed with it, in one rounding.
  void join_products();
  Operand add_leaf(int input, graph::Tensor constant, const graph::TensorType& type);
  int take_register();
  // The iteration space: what sums sum, what other outputs are.
  Status find_dims();
  Status sum(const graph::Node& node);
  Status instruction(const graph::Node& node, int32_t n);
  // Axes that all operands step through alike become one loop.
  void add_loops(const std::vector<graph::Dims>& shapes, int64_t max_period);
  // Leaves and instructions as machine code; sums read what it stores after the outputs.
  std::optional<TileCode> code();
  // The body as an Affine, if it is one. Products come before sums: taking (x - m) * s apart would lose digits of x -
  // m.
  std::optional<Affine> affine() const;

  TileProgram& program;
  const graph::Graph& body;
  Purpose purpose;
  std::vector<Operand> place;
  std::vector<graph::Dims> leaf_dims, sum_dims;
  std::vector<int32_t> last_use, source;
  std::vector<int> output_of, free_registers;
  std::vector<bool> kept;     // read at the end of the tile
  std::vector<int> joined;    // by node: which operand is a product that is computed with it, or -1
  std::vector<bool> skipped;  // by node: a product that is computed with its reader
  graph::Dims dims;
};

}  // namespace deepseek::backends::cpu
