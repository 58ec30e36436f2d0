// Tile operations as machine code (x86-64 with AVX-512): one loop that keeps intermediates in vector registers, where
// tile functions (tile_ops.h) write each of them to the first-level cache. Results are those of the tile functions, but
// for tanh and log, which differ by a rounding, and for half floats below the least normal number, which are 0.
// Test: tests/backends_cpu/tile_code_test.cc
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace deepseek::backends::cpu {

class TileCode {
 public:
  struct Leaf {
    DType dtype = DType::kF32;  // f32, a half float or bool
    bool scalar = false;        // f32: one number that all elements share
  };
  // Values count leaves first, then results of operations in order. `dtype` is that of the result; half floats are f32
  // until they are stored.
  struct Operation {
    std::string op;  // as find_tile_fn() names them
    DType in = DType::kF32, out = DType::kF32;
    std::vector<int> operands;
    int output = -1;  // where the result is stored at once, or -1
  };
  struct Store {  // after all operations
    int value, output;
    DType dtype;
    // f32: not the elements are stored but kLanes sums, of every kLanes-th of them from the first on, from the second
    // on, ...
    bool sums = false;
  };
  static constexpr int64_t kLanes = 16;

  // Empty where there is no code for the CPU, for an operation, or where registers don't suffice.
  static std::optional<TileCode> make(const std::vector<Leaf>& leaves, const std::vector<Operation>& operations,
                                      const std::vector<Store>& stores);

  // Elements [0, n) of contiguous operands.
  void run(const void* const* leaves, void* const* outputs, int64_t n) const { function_(leaves, outputs, n); }

 private:
  using Function = void (*)(const void* const* leaves, void* const* outputs, int64_t n);
  Function function_ = nullptr;
  std::shared_ptr<const void> memory_;  // where the code is
};

}  // namespace deepseek::backends::cpu
