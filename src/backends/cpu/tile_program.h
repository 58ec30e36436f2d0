// A graph of element-wise nodes, and of sums of their results, as one pass over memory: a list of tile operations that
// each thread walks tile by tile, so that intermediates stay in the first-level cache, or where there is machine code
// for them (tile_code.h), in registers. The element-wise kernel is one; others run one as their epilogue on memory that
// is still in cache. Half floats are f32 between memory and memory: widened as a tile is read, rounded where a cast
// says so and at the end. Test: tests/ops/samples_test.cc, tests/backends_cpu/kernels_test.cc
#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backends/cpu/kernel.h"
#include "backends/cpu/tile_code.h"
#include "backends/cpu/tile_ops.h"
#include "graph/graph.h"

namespace deepseek::backends::cpu {

// Whether the node, of an element-wise op, is one tile operation. A composite that is not is taken apart.
bool is_tile_op(const graph::Graph& graph, const graph::Node& node);

class TileProgram {
 public:
  // `body`'s outputs have the shape of the iteration space, or are sum or mean of a value of that shape, which nothing
  // else reads. Composite nodes are taken apart. kUnsupported with the reason where a node has no tile operation.
  // An inner loop of at most `max_period` steps, which some operands repeat, is joined with the next one; so is one of
  // a few steps in which some operands stay where they are.
  // kAsk: all but what it runs by. It is refused alike, and tells its size(), unit() and in_place().
  static Result<TileProgram> compile(const graph::Graph& body, int64_t max_period = kTile / 2,
                                     Purpose purpose = Purpose::kRun);

  int64_t size() const { return graph::product(loops_); }  // elements of the iteration space
  bool has_code() const { return code_.has_value(); }
  // Whether sums stay in registers too.
  bool has_code_for_sums() const {
    return has_code() && std::all_of(sums_.begin(), sums_.end(), [](const Sum& sum) { return sum.in_code; });
  }
  size_t num_instructions() const { return instructions_.size(); }
  int64_t work() const { return std::max<int64_t>(1, work_); }  // per element, in additions
  // Ranges begin and end at multiples of this.
  int64_t unit() const { return period_; }
  // Doubles that the sums of a range are kept in; add() accumulates there, and store() writes what came together.
  int64_t num_sums() const { return num_sums_; }

  // Elements [begin, end) in row-major order. Operands start at element 0; `out` is not read at outputs that are sums.
  void run(std::span<const void* const> in, std::span<void* const> out, int64_t begin, int64_t end, double* sums) const;
  void store(const double* sums, std::span<void* const> out) const;

  // True if output `out` may be written over input `in` while it is read.
  bool in_place(int out, int in) const;

 private:
  struct Leaf {      // an operand in memory: input of the node, or constant of the body
    int input = -1;  // -1: constant
    graph::Tensor constant;
    DType dtype;
    graph::Dims strides;  // in elements, by loop dim; the inner one is 0 or 1
    // The inner loop steps through elements, goes round and round the first period_ of them, or stays at each for
    // period_ steps.
    enum Walk { kSteps, kPeriodic, kStays } walk = kSteps;
    // Whether an element of the loop is at its stride.
    bool plain() const { return walk == kSteps && strides.back() != 0; }
    TileFn widen = nullptr;  // half floats: to f32
  };
  struct Operand {
    enum Kind { kLeaf, kRegister, kOutput } kind = kLeaf;  // kOutput: a result that later instructions read back
    int index = 0;
    bool leaf() const { return kind == kLeaf; }
  };
  struct Instruction {
    TileFn fn;
    std::vector<Operand> in;
    int reg;  // where the result goes, unless output >= 0
    int output = -1;
    TileOp op;
    DType in_dtype = DType::kF32, out_dtype = DType::kF32;
  };
  struct Narrowed {  // a half float output: the f32 result goes there at the end of a tile
    Operand from;
    int output;
    TileFn fn;
  };
  struct Sum {  // of a value of the iteration space, into an output
    Operand from;
    int output = 0;
    graph::Dims strides;  // of the result by loop dim, 0 where it is summed
    bool periodic = false;
    int64_t size = 0, offset = 0;  // its doubles among all
    bool in_code = false;          // the code adds up, by lanes
    double scale = 1;              // of a mean
  };
  // A program that is y = sum of coefficient * operand + shift, and perhaps max(y, 0), where coefficients and shift are
  // vectors along the period: those of a row are computed once, and then stay in registers.
  struct Affine {
    struct Op {  // on vectors of one period
      enum Kind { kLeaf, kAdd, kSub, kMul, kNeg } kind;
      int a, b = -1;  // leaf, or numbers of earlier ops
    };
    struct Term {
      int leaf, coefficient;  // an op, or -1 for one
    };
    std::vector<Op> ops;
    std::vector<Term> terms;
    int shift = -1;  // an op, or -1 for zero
    bool relu = false;
  };
  struct Compiler;

  // f(offset of each leaf and sum, element, place in the inner loop, count) for parts of [begin, end), none longer than
  // `longest` and each within a run of the inner loop.
  template <class F>
  void walk(int64_t begin, int64_t end, int64_t longest, F f) const;
  const char* address(const Leaf& leaf, std::span<const void* const> in, int64_t offset, int64_t column) const;
  void add_sums(size_t k, const float* x, int64_t offset, int64_t column, int64_t n, bool by_lanes, double* sums) const;
  bool run_code(std::span<const void* const> in, std::span<void* const> out, int64_t begin, int64_t end,
                double* sums) const;
  void run_affine(std::span<const void* const> in, std::span<void* const> out, int64_t begin, int64_t end) const;
  const void* load(const Leaf& leaf, const void* base, char* buffer, bool same, int64_t n) const;

  std::vector<Leaf> leaves_;
  std::optional<Affine> affine_;
  std::optional<TileCode> code_;
  std::vector<bool> in_code_;  // leaves that the code reads from memory, or as one number; others are made in a buffer
  std::vector<Instruction> instructions_;
  graph::Dims loops_;              // merged iteration dims; the last is the inner one
  int64_t period_ = 1;             // of periodic operands
  std::vector<size_t> out_sizes_;  // element sizes of outputs
  std::vector<DType> out_dtypes_;
  std::vector<int> leaf_copies_;  // output -> leaf where an output is just a (broadcast) input
  std::vector<Narrowed> narrowed_;
  std::vector<Sum> sums_;
  int64_t num_sums_ = 0, work_ = 0;
  int num_registers_ = 0;
};

}  // namespace deepseek::backends::cpu
