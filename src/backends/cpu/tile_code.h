// Tile operations as machine code (x86-64 with AVX-512, or AVX2 and FMA): one loop that keeps intermediates in vector
// registers, where tile functions (tile_ops.h) write each of them to the first-level cache. Results are those of the
// tile functions but for the last bit of exp, tanh, log and what is made of them, and for bf16 below the least normal
// number, which is 0. Test: tests/backends_cpu/tile_code_test.cc
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "backends/cpu/tile_table.h"
#include "base/dtype.h"

namespace deepseek::backends::cpu {

class TileCode {
 public:
  struct Leaf {
    DType dtype = DType::kF32;  // f32, a half float, bool, or i32, which is only compared
    bool scalar = false;        // f32 or i32: one number that all elements share
    bool vector = false;        // f32: lanes() numbers that all vectors share
  };
  // Values count leaves first, then results of operations in order. `out` is the dtype of the result; half floats are
  // f32 until they are stored.
  struct Operation {
    TileOp op;
    DType in = DType::kF32, out = DType::kF32;
    std::vector<int> operands;
    int output = -1;  // where the result is stored at once, or -1
  };
  struct Store {  // after all operations
    int value, output;
    DType dtype;
    // f32: not the elements are stored but lanes() sums, of every lanes()-th of them from the first on, from the second
    // on, ...
    bool sums = false;
  };

  // Floats of a vector: 16, 8, or 0 where there is no code for this CPU.
  static int64_t best_lanes();
  // Whether there is code for the operation on this CPU.
  static bool has(TileOp op, DType in, DType out);
  // Empty where there is no code for these vectors, for an operation, or where registers don't suffice.
  static std::optional<TileCode> make(const std::vector<Leaf>& leaves, const std::vector<Operation>& operations,
                                      const std::vector<Store>& stores, int64_t lanes = best_lanes());

  int64_t lanes() const { return lanes_; }
  // Elements [0, n) of contiguous operands.
  void run(const void* const* leaves, void* const* outputs, int64_t n) const;

 private:
  using Function = void (*)(const void* const* leaves, void* const* outputs, int64_t n);
  void run_tail(const void* const* leaves, void* const* outputs, int64_t first, int64_t n) const;

  Function function_ = nullptr;  // of whole vectors
  int64_t lanes_ = 0;
  std::vector<size_t> leaf_sizes_, output_sizes_;  // of elements; 0 of what all share, and of what isn't stored
  std::vector<bool> sums_;                         // by output
  std::shared_ptr<const void> memory_;             // where the code is
};

}  // namespace deepseek::backends::cpu
