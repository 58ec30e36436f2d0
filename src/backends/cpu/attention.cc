// f32 attention and its gradient without the matrix of scores: a block of queries at a time meets all keys of its head,
// so that what a thread needs beside the operands is one block's scores. The gradient computes them again.
#include <algorithm>
#include <cmath>
#include <optional>

#include "backends/cpu/kernel.h"
#include "backends/cpu/microgemm.h"
#include "backends/cpu/rows.h"
#include "base/simd.h"
#include "base/threads.h"

namespace deepseek::backends::cpu {

namespace {

constexpr int64_t kRows = 32;  // queries of a block
constexpr float kHidden = -1e30f;

// What is added to the scores, or which are seen; a stride of 0 repeats.
struct Mask {
  bool given = false, is_bool = false;
  int64_t batch = 0, head = 0, query = 0, key = 0;  // strides
};

struct Shape {
  int64_t batch = 0, heads = 0, queries = 0, keys = 0, width = 0, value_width = 0;
  float scale = 1;
  bool causal = false;
  Mask mask;
};

Mask mask_of(const graph::TensorType& type) {
  Mask mask{.given = true, .is_bool = type.dtype == DType::kBool};
  int64_t* const strides[] = {&mask.key, &mask.query, &mask.head, &mask.batch};
  int64_t stride = 1;
  for (int64_t d = 0; d < type.rank(); ++d) {
    const int64_t size = type.dims[static_cast<size_t>(type.rank() - 1 - d)];
    *strides[d] = size == 1 ? 0 : stride;
    stride *= size;
  }
  return mask;
}

// Adds, down to kHidden and no further: a row of -inf throughout attends evenly.
inline float lowered(float score, float mask) {
  const float sum = score + mask;
  return sum < kHidden ? kHidden : sum;
}
DS_SIMD void add(const float* mask, int64_t stride, int64_t n, float* scores) {
  if (stride == 1)
    for (int64_t j = 0; j < n; ++j) scores[j] = lowered(scores[j], mask[j]);
  else
    for (int64_t j = 0; j < n; ++j) scores[j] = lowered(scores[j], mask[j * stride]);
}
DS_SIMD void clear_below(const float* mask, int64_t stride, int64_t n, float* grad) {
  for (int64_t j = 0; j < n; ++j) grad[j] = mask[j * stride] > kHidden ? grad[j] : 0.0f;
}

DS_SIMD void scaled(const float* x, float factor, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * factor;
}

// y[columns][rows] of x[rows][columns].
void transpose(const float* x, int64_t rows, int64_t columns, float* y) {
  constexpr int64_t kSquare = 16;
  for (int64_t i = 0; i < rows; i += kSquare)
    for (int64_t j = 0; j < columns; j += kSquare)
      for (int64_t c = j; c < std::min(columns, j + kSquare); ++c)
        for (int64_t r = i; r < std::min(rows, i + kSquare); ++r) y[c * rows + r] = x[r * columns + c];
}

// A product for whole blocks of queries and one for the rest.
struct Product {
  MicroGemm whole, rest;

  template <class MakeShape>
  static Result<Product> make(const Shape& s, const MakeShape& shape) {
    Product p;
    DS_ASSIGN(p.whole, MicroGemm::make(shape(std::min(s.queries, kRows))));
    const int64_t rest = s.queries % kRows;
    DS_ASSIGN(p.rest, MicroGemm::make(shape(rest == 0 ? std::min(s.queries, kRows) : rest)));
    return p;
  }
  void operator()(const Shape& s, int64_t rows, const float* a, const float* b, float* c) const {
    (rows == std::min(s.queries, kRows) ? whole : rest)(&a, &b, 1, c);
  }
};

// Scores of a block, and from them probabilities.
class Scores {
 public:
  static Result<Scores> make(const Shape& s) {
    Scores scores;
    scores.s_ = s;
    DS_ASSIGN(scores.product_, Product::make(s, [&](int64_t rows) {
                return MicroGemmShape{s.keys, rows, s.width, s.keys, s.width, s.keys};
              }));
    return scores;
  }
  // p[rows][keys] of queries q[rows][width], already scaled, and keys [width][keys].
  void probabilities(const float* q, const float* keys, const void* mask, int64_t head, int64_t first, int64_t rows,
                     float* p) const {
    product_(s_, rows, keys, q, p);
    for (int64_t i = 0; i < rows; ++i) {
      float* const row = p + i * s_.keys;
      if (s_.causal)
        for (int64_t j = first + i + 1; j < s_.keys; ++j) row[j] = kHidden;
      hide(mask, head, first + i, row);
      row_functions().softmax(row, s_.keys, row);
    }
  }
  // Whether a score depends on q and k; others have no gradient.
  void clear_hidden(const void* mask, int64_t head, int64_t query, float* row) const {
    if (s_.causal)
      for (int64_t j = query + 1; j < s_.keys; ++j) row[j] = 0;
    if (!s_.mask.given) return;
    if (!s_.mask.is_bool)
      return clear_below(static_cast<const float*>(mask) + offset(head, query), s_.mask.key, s_.keys, row);
    const bool* const m = static_cast<const bool*>(mask) + offset(head, query);
    for (int64_t j = 0; j < s_.keys; ++j)
      if (!m[j * s_.mask.key]) row[j] = 0;
  }

 private:
  int64_t offset(int64_t head, int64_t query) const {
    const Mask& m = s_.mask;
    return head / s_.heads * m.batch + head % s_.heads * m.head + query * m.query;
  }
  void hide(const void* mask, int64_t head, int64_t query, float* row) const {
    if (!s_.mask.given) return;
    if (!s_.mask.is_bool) return add(static_cast<const float*>(mask) + offset(head, query), s_.mask.key, s_.keys, row);
    const bool* const m = static_cast<const bool*>(mask) + offset(head, query);
    for (int64_t j = 0; j < s_.keys; ++j)
      if (!m[j * s_.mask.key]) row[j] = kHidden;
  }
  Shape s_;
  Product product_;
};

class Forward : public Kernel {
 public:
  static KernelOrError make(const Shape& s) {
    auto k = std::make_unique<Forward>();
    k->s_ = s;
    DS_ASSIGN(k->scores_, Scores::make(s));
    DS_ASSIGN(k->output_, Product::make(s, [&](int64_t rows) {
                return MicroGemmShape{s.value_width, rows, s.keys, s.value_width, s.keys, s.value_width};
              }));
    return std::unique_ptr<Kernel>(std::move(k));
  }
  Status run(const KernelArgs& args) const override {
    const auto *q = static_cast<const float*>(args.in[0]), *k = static_cast<const float*>(args.in[1]),
               *v = static_cast<const float*>(args.in[2]);
    const void* const mask = s_.mask.given ? args.in[3] : nullptr;
    auto* const y = static_cast<float*>(args.out[0]);
    const int64_t blocks = (s_.queries + kRows - 1) / kRows, heads = s_.batch * s_.heads;
    parallel_for(heads * blocks, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> keys(static_cast<size_t>(s_.width * s_.keys)), scaled_q(static_cast<size_t>(kRows * s_.width)),
          p(static_cast<size_t>(kRows * s_.keys));
      for (int64_t task = begin; task < end; ++task) {
        const int64_t head = task / blocks, first = task % blocks * kRows, rows = std::min(kRows, s_.queries - first);
        if (task == begin || first == 0) transpose(k + head * s_.keys * s_.width, s_.keys, s_.width, keys.data());
        scaled(q + (head * s_.queries + first) * s_.width, s_.scale, rows * s_.width, scaled_q.data());
        scores_.probabilities(scaled_q.data(), keys.data(), mask, head, first, rows, p.data());
        output_(s_, rows, v + head * s_.keys * s_.value_width, p.data(),
                y + (head * s_.queries + first) * s_.value_width);
      }
    });
    return {};
  }
  std::string detail() const override { return fmt::format("blocks of {} queries", kRows); }

 private:
  Shape s_;
  Scores scores_;
  Product output_;
};

class Backward : public Kernel {
 public:
  static KernelOrError make(const Shape& s) {
    auto k = std::make_unique<Backward>();
    k->s_ = s;
    const int64_t e = s.width, v = s.value_width, n = s.keys;
    DS_ASSIGN(k->scores_, Scores::make(s));
    DS_ASSIGN(k->dp_, Product::make(s, [&](int64_t rows) { return MicroGemmShape{n, rows, v, n, v, n}; }));
    DS_ASSIGN(k->dq_, Product::make(s, [&](int64_t rows) { return MicroGemmShape{e, rows, n, e, n, e}; }));
    DS_ASSIGN(k->dk_, Product::make(s, [&](int64_t rows) { return MicroGemmShape{e, n, rows, e, n, e, true, true}; }));
    DS_ASSIGN(k->dv_, Product::make(s, [&](int64_t rows) { return MicroGemmShape{v, n, rows, v, n, v, true, true}; }));
    return std::unique_ptr<Kernel>(std::move(k));
  }
  Status run(const KernelArgs& args) const override {
    const auto *q = static_cast<const float*>(args.in[0]), *k = static_cast<const float*>(args.in[1]),
               *v = static_cast<const float*>(args.in[2]), *dy = static_cast<const float*>(args.in[3]);
    const void* const mask = s_.mask.given ? args.in[4] : nullptr;
    float *const dq = static_cast<float*>(args.out[0]), *const dk = static_cast<float*>(args.out[1]),
                 *const dv = static_cast<float*>(args.out[2]);
    const int64_t e = s_.width, w = s_.value_width, n = s_.keys;
    parallel_for(s_.batch * s_.heads, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> keys(static_cast<size_t>(e * n)), values(static_cast<size_t>(w * n)),
          scaled_q(static_cast<size_t>(kRows * e)), p(static_cast<size_t>(kRows * n)), dp(p.size());
      // Of an operand whose gradient nobody reads.
      std::vector<float> unread(static_cast<size_t>(std::max({kRows * e, n * e, n * w})));
      for (int64_t head = begin; head < end; ++head) {
        transpose(k + head * n * e, n, e, keys.data());
        transpose(v + head * n * w, n, w, values.data());
        float* const to_k = dk == nullptr ? unread.data() : dk + head * n * e;
        float* const to_v = dv == nullptr ? unread.data() : dv + head * n * w;
        std::fill_n(to_k, n * e, 0.0f);
        std::fill_n(to_v, n * w, 0.0f);
        for (int64_t first = 0; first < s_.queries; first += kRows) {
          const int64_t rows = std::min(kRows, s_.queries - first), at = head * s_.queries + first;
          scaled(q + at * e, s_.scale, rows * e, scaled_q.data());
          scores_.probabilities(scaled_q.data(), keys.data(), mask, head, first, rows, p.data());
          dv_(s_, rows, dy + at * w, p.data(), to_v);
          dp_(s_, rows, values.data(), dy + at * w, dp.data());
          for (int64_t i = 0; i < rows; ++i) {
            row_functions().softmax_grad(p.data() + i * n, dp.data() + i * n, n, dp.data() + i * n);
            scores_.clear_hidden(mask, head, first + i, dp.data() + i * n);
          }
          dk_(s_, rows, scaled_q.data(), dp.data(), to_k);
          float* const to_q = dq == nullptr ? unread.data() : dq + at * e;
          dq_(s_, rows, k + head * n * e, dp.data(), to_q);
          scaled(to_q, s_.scale, rows * e, to_q);
        }
      }
    });
    return {};
  }
  std::string detail() const override { return fmt::format("blocks of {} queries", kRows); }

 private:
  Shape s_;
  Scores scores_;
  Product dp_, dq_, dk_, dv_;
};

}  // namespace

Status takes_attention(const NodeInfo& node) {
  const bool backward = node.context.op->name.value == "attention_grad";
  const graph::TensorType &q = node.context.in(0), &k = node.context.in(1), &v = node.context.in(2);
  if (q.dtype != DType::kF32) return refuse(fmt::format("dtype {} is not supported", to_string(q.dtype)));
  if (q.num_elements() == 0 || k.num_elements() == 0 || v.num_elements() == 0) return refuse("an operand is empty");
  if (backward && node.context.flag("mask_gradient")) return refuse("the mask's gradient needs all scores");
  // All sizes and strides of its products.
  return MicroGemm::takes({k.dims[2], q.dims[3], v.dims[3]});
}

KernelOrError make_attention(const NodeInfo& node) {
  const bool backward = node.context.op->name.value == "attention_grad";
  const graph::TensorType &q = node.context.in(0), &k = node.context.in(1), &v = node.context.in(2);
  Shape s{.batch = q.dims[0],
          .heads = q.dims[1],
          .queries = q.dims[2],
          .keys = k.dims[2],
          .width = q.dims[3],
          .value_width = v.dims[3]};
  const double scale = node.context.number("scale");
  s.scale = static_cast<float>(scale >= 0 ? scale : 1 / std::sqrt(static_cast<double>(s.width)));
  s.causal = node.context.flag("causal");
  if (const size_t mask = backward ? 4 : 3; node.context.num_inputs() > mask) s.mask = mask_of(node.context.in(mask));
  return backward ? Backward::make(s) : Forward::make(s);
}

}  // namespace deepseek::backends::cpu
