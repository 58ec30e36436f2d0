// f32 matrix products of moderate size by our own loops: a tile of y stays in registers over a part of the sum, b goes
// in packed strips of two vectors' width, a is read where it lies or, where its rows are far apart, from a copy that
// stays in the second-level cache. Products with few rows read b where it lies too. Each element is one sum in an order
// that depends on the sizes alone, so results don't depend on the number of threads.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "backends/cpu/gemm_tiles.h"
#include "backends/cpu/kernel.h"
#include "base/threads.h"

namespace deepseek::backends::cpu {

using graph::Dims;

namespace {

// A part of a, of so many rows and so deep, shares the second-level cache with a strip of b as deep.
constexpr int64_t kMostRows = 504, kDepth = 384;
constexpr int64_t kPitch = kDepth + 16;  // of copied rows, no multiple of what maps to the same cache set
// From how many rows on packing b is paid for, and from how many strips on the copy of a.
constexpr int64_t kPackedRows = 128, kCopiedStrips = 4;
constexpr int64_t kFewColumns = 8;  // most of a vector would be empty
constexpr int64_t kPage = 4096;
constexpr int64_t kLarge = 1 << 25;  // multiplications from which on, with many rows, oneDNN is a little faster
constexpr int64_t kWork = 1 << 14;   // multiplications that are worth another thread

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Products of pairs of matrices, at multiples of whole matrices that broadcasting gives.
struct Products {
  int64_t rows = 0, columns = 0, depth = 0;
  bool transpose_a = false, transpose_b = false;
  std::vector<int64_t> a, b;  // by matrix of y: numbers of the operands' matrices
};

class Gemm : public Kernel {
 public:
  Gemm(Products p, bool fixed) : p_(std::move(p)), f_(gemm_functions()), fixed_(fixed) {
    strips_ = ceil_div(p_.columns, f_.columns);
    inner_ = p_.transpose_b && !fixed_ && !p_.transpose_a && (p_.rows < kPackedRows || p_.columns <= kFewColumns);
    packs_ = !fixed_ && !inner_ && (p_.transpose_b || p_.rows >= kPackedRows);
    copies_ = p_.transpose_a ? p_.depth > kDepth / 4 : p_.depth * sizeof(float) % kPage == 0 || p_.depth > 4 * kDepth;
    // Blocks of rows as even as they come, and enough of them for all threads.
    int64_t blocks = ceil_div(p_.rows, kMostRows);
    const auto matrices = static_cast<int64_t>(p_.a.size());
    blocks = std::max(blocks, ceil_div(2 * num_threads(), matrices * strips_));
    rows_ = ceil_div(ceil_div(p_.rows, blocks), f_.rows) * f_.rows;
    blocks_ = ceil_div(p_.rows, rows_);
  }

  size_t prepared_bytes() const override {
    return fixed_ ? static_cast<size_t>(strips_ * f_.columns * p_.depth) * sizeof(float) : 0;
  }
  bool reads(int in) const override { return in != 1 || !fixed_; }
  Status prepare(const KernelArgs& args) const override {
    if (!fixed_) return {};
    auto* const to = static_cast<float*>(args.prepared);
    parallel_for(strips_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s)
        pack(static_cast<const float*>(args.in[1]), s, 0, p_.depth, to + s * f_.columns * p_.depth);
    });
    return {};
  }
  std::string detail() const override {
    return inner_ ? "inner products"
                  : fmt::format("tiles of {} x {}{}", f_.rows, f_.columns, fixed_ ? ", packed before" : "");
  }

  Status run(const KernelArgs& args) const override {
    const auto* const a = static_cast<const float*>(args.in[0]);
    const auto* const b = static_cast<const float*>(fixed_ ? args.prepared : args.in[1]);
    auto* const y = static_cast<float*>(args.out[0]);
    const int64_t task = rows_ * f_.columns * p_.depth;
    parallel_for(static_cast<int64_t>(p_.a.size()) * blocks_ * strips_, 1 + kWork / task,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t t = begin; t < end;) {
                     const int64_t block = t / strips_ % blocks_, first = t % strips_;
                     const auto matrix = static_cast<size_t>(t / strips_ / blocks_);
                     const int64_t last = std::min(strips_, first + end - t);
                     strips(a + p_.a[matrix] * p_.rows * p_.depth, b + p_.b[matrix] * p_.depth * p_.columns,
                            y + static_cast<int64_t>(matrix) * p_.rows * p_.columns, block * rows_, first, last);
                     t += last - first;
                   }
                 });
    return {};
  }

 private:
  void pack(const float* b, int64_t strip, int64_t k, int64_t depth, float* to) const {
    const int64_t column = strip * f_.columns, n = std::min(f_.columns, p_.columns - column);
    if (p_.transpose_b)
      f_.pack_transposed(b + column * p_.depth + k, p_.depth, depth, n, to);
    else
      f_.pack(b + k * p_.columns + column, p_.columns, depth, n, to);
  }

  // Of one product the block of rows that begins at `row`, in strips [first, last).
  void strips(const float* a, const float* b, float* y, int64_t row, int64_t first, int64_t last) const {
    const int64_t rows = std::min(rows_, p_.rows - row);
    GemmTile t;
    t.y_row = p_.columns;
    if (inner_) {
      const int64_t column = first * f_.columns;
      t.rows = rows;
      t.columns = std::min(last * f_.columns, p_.columns) - column;
      t.depth = t.a_row = t.b_step = p_.depth;
      t.a_depth = 1;
      t.a = a + row * p_.depth;
      t.b = b + column * p_.depth;
      t.y = y + row * p_.columns + column;
      return f_.inner(t);
    }
    thread_local std::vector<float> memory;
    const bool copies = copies_ && last - first >= kCopiedStrips;
    const auto size = static_cast<size_t>(kDepth * f_.columns + (copies ? kMostRows * kPitch : 0));
    if (memory.size() < size) memory.resize(size);
    float *const strip = memory.data(), *const copy = strip + kDepth * f_.columns;
    for (int64_t k = 0; k < p_.depth; k += kDepth) {
      t.depth = std::min(kDepth, p_.depth - k);
      t.accumulate = k > 0;
      t.a_row = p_.transpose_a ? 1 : copies ? kPitch : p_.depth;
      t.a_depth = !p_.transpose_a ? 1 : copies ? rows_ + 16 : p_.rows;
      const float* from = p_.transpose_a ? a + k * p_.rows + row : a + row * p_.depth + k;
      if (copies) {
        const bool by_k = p_.transpose_a;
        for (int64_t i = 0; i < (by_k ? t.depth : rows); ++i)
          std::memcpy(copy + i * (by_k ? t.a_depth : t.a_row), from + i * (by_k ? p_.rows : p_.depth),
                      static_cast<size_t>(by_k ? rows : t.depth) * sizeof(float));
        from = copy;
      }
      for (int64_t s = first; s < last; ++s) {
        const int64_t column = s * f_.columns;
        t.columns = std::min(f_.columns, p_.columns - column);
        t.b_step = packs_ || fixed_ ? f_.columns : p_.columns;
        t.b = fixed_ ? b + (s * p_.depth + k) * f_.columns : packs_ ? strip : b + k * p_.columns + column;
        if (packs_) pack(b, s, k, t.depth, strip);
        for (int64_t i = 0; i < rows; i += f_.rows) {
          t.rows = std::min(f_.rows, rows - i);
          t.a = from + i * t.a_row;
          t.y = y + (row + i) * p_.columns + column;
          f_.outer(t);
        }
      }
    }
  }

  Products p_;
  const GemmFunctions f_;
  bool fixed_ = false, inner_ = false, packs_ = false, copies_ = false;
  int64_t strips_ = 0, blocks_ = 0, rows_ = 0;  // of columns; of rows of y; rows of one
};

// By matrix of y, which of an operand: leading dims of one, or none, repeat it.
std::vector<int64_t> matrices(const Dims& dims, const Dims& y) {
  std::vector<int64_t> numbers = {0};
  for (size_t d = 0; d + 2 < y.size(); ++d) {
    const int64_t own = d + dims.size() >= y.size() ? dims[d + dims.size() - y.size()] : 1;
    std::vector<int64_t> next;
    for (const int64_t n : numbers)
      for (int64_t i = 0; i < y[d]; ++i) next.push_back(n * own + (own == 1 ? 0 : i));
    numbers = std::move(next);
  }
  return numbers;
}

}  // namespace

namespace {

// But for which matrices: one_b, whether b is a single one, and joined, whether all of a's then make one product.
struct Sizes {
  Products products;
  bool one_b, joined;
};
Sizes sizes_of(const NodeInfo& node) {
  const graph::TensorType &a = node.context.in(0), &b = node.context.in(1), &y = node.outputs[0];
  Sizes s{};
  Products& p = s.products;
  p.transpose_a = node.context.flag("transpose_a");
  p.transpose_b = node.context.flag("transpose_b");
  p.rows = y.dims[y.dims.size() - 2];
  p.columns = y.dims.back();
  p.depth = a.dims[a.dims.size() - (p.transpose_a ? 2 : 1)];
  s.one_b = b.num_elements() == p.depth * p.columns;
  s.joined = s.one_b && !p.transpose_a && a.num_elements() * p.columns == y.num_elements() * p.depth;
  if (s.joined) p.rows = a.num_elements() / p.depth;
  return s;
}

}  // namespace

Status takes_gemm(const NodeInfo& node) {
  const graph::TensorType &a = node.context.in(0), &y = node.outputs[0];
  if (a.dtype != DType::kF32) return refuse(fmt::format("dtype {} is not supported", to_string(a.dtype)));
  if (y.num_elements() == 0 || a.num_elements() == 0) return refuse("an operand is empty");
  const Products p = sizes_of(node).products;
  if (p.rows >= kPackedRows && p.rows * p.columns * p.depth > kLarge)
    return refuse("oneDNN is faster for large products");
  return {};
}

KernelOrError make_gemm(const NodeInfo& node) {
  Sizes s = sizes_of(node);
  const Dims& y = node.outputs[0].dims;
  s.products.a = s.joined ? std::vector<int64_t>{0} : matrices(node.context.in(0).dims, y);
  s.products.b = s.joined ? std::vector<int64_t>{0} : matrices(node.context.in(1).dims, y);
  return std::unique_ptr<Kernel>(std::make_unique<Gemm>(std::move(s.products), s.one_b && node.is_fixed(1)));
}

}  // namespace deepseek::backends::cpu
