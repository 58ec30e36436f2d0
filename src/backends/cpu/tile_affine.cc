// Programs that are a sum of products with vectors along the period, and perhaps the positive part of it.
#include <algorithm>

#include "backends/cpu/tile_compile.h"

namespace deepseek::backends::cpu {

using namespace graph;

namespace {

constexpr size_t kMostOps = 12;  // of the vectors in an Affine

}  // namespace

std::optional<TileProgram::Affine> TileProgram::Compiler::affine() const {
  static constexpr int kNone = -1;
  struct Form {
    bool known = false;
    std::vector<Affine::Term> terms;
    int shift = -1;
    bool relu = false;
  };
  if (body.outputs().size() != 1 || program.out_dtypes_[0] != DType::kF32 || !program.sums_.empty()) return {};
  if (kMostWidth % program.period_ != 0 || (program.period_ % 16 != 0 && 16 % program.period_ != 0)) return {};
  Affine result;
  std::vector<Form> forms(static_cast<size_t>(body.num_values()));
  const auto op = [&](Affine::Op::Kind kind, int a, int b) {
    result.ops.push_back({kind, a, b});
    return static_cast<int>(result.ops.size()) - 1;
  };
  const auto negative = [&](Form f) {
    for (Affine::Term& t : f.terms) {
      if (t.coefficient == kNone) return Form();  // minus one would have to be made
      t.coefficient = op(Affine::Op::kNeg, t.coefficient, kNone);
    }
    if (f.shift != kNone) f.shift = op(Affine::Op::kNeg, f.shift, kNone);
    return f;
  };
  const auto leaf = [&](Value v) {
    Form f;
    const Leaf& l = program.leaves_[static_cast<size_t>(place[v.id].index)];
    if (l.dtype != DType::kF32 || l.walk == Leaf::kStays) return f;
    f.known = true;
    if (!l.plain())
      f.shift = op(Affine::Op::kLeaf, place[v.id].index, kNone);
    else
      f.terms.push_back({place[v.id].index, kNone});
    return f;
  };
  for (const Input& input : body.inputs()) forms[input.value.id] = leaf(input.value);
  for (const Node& node : body.nodes()) {
    Form& to = forms[node.output().id];
    if (node.op_name() == "constant") {
      to = leaf(node.output());
      continue;
    }
    const std::optional<TileOp> tile_op = find_tile_op(node.op_name());
    const Form& a = forms[node.inputs[0].id];
    const Form& b = forms[node.inputs.back().id];
    if (!a.known || !b.known || body.type(node.output()).dtype != DType::kF32) return {};
    if (node.op_name() == "broadcast_to") {
      to = a;
    } else if (a.relu || b.relu) {
      return {};
    } else if (tile_op == TileOp::kRelu) {
      to = a;
      to.relu = true;
    } else if (tile_op == TileOp::kAdd || tile_op == TileOp::kSub) {
      const Form c = tile_op == TileOp::kSub ? negative(b) : b;
      if (!c.known) return {};
      to = a;
      to.terms.insert(to.terms.end(), c.terms.begin(), c.terms.end());
      if (c.shift != kNone) to.shift = a.shift == kNone ? c.shift : op(Affine::Op::kAdd, a.shift, c.shift);
    } else if (tile_op == TileOp::kMul) {
      const Form &vector = a.terms.empty() ? a : b, &other = a.terms.empty() ? b : a;
      if (!vector.terms.empty() || (!other.terms.empty() && other.shift != kNone) || other.terms.size() > 1) return {};
      to = other;
      for (Affine::Term& t : to.terms)
        t.coefficient = t.coefficient == kNone ? vector.shift : op(Affine::Op::kMul, t.coefficient, vector.shift);
      if (to.shift != kNone) to.shift = op(Affine::Op::kMul, other.shift, vector.shift);
    } else {
      return {};
    }
  }
  const Form& y = forms[body.outputs()[0].value.id];
  if (!y.known || y.terms.empty() || y.terms.size() > kMostTerms || result.ops.size() > kMostOps) return {};
  result.terms = y.terms;
  result.shift = y.shift;
  result.relu = y.relu;
  return result;
}

void TileProgram::run_affine(std::span<const void* const> in, std::span<void* const> out, int64_t begin,
                             int64_t end) const {
  const int64_t inner = loops_.back(), width = std::max<int64_t>(16, period_);
  float values[kMostOps][kMostWidth], one[kMostWidth], zero[kMostWidth] = {};
  std::fill_n(one, kMostWidth, 1.0f);
  const float* coefficients[kMostTerms];
  for (size_t t = 0; t < affine_->terms.size(); ++t) {
    const int op = affine_->terms[t].coefficient;
    coefficients[t] = op < 0 ? one : values[op];
  }
  for (int64_t at = begin; at < end;) {
    const int64_t row = at / inner, column = at % inner, n = std::min(inner - column, end - at);
    const auto base = [&](int l) {
      const Leaf& leaf = leaves_[static_cast<size_t>(l)];
      int64_t offset = 0, rest = row;
      for (size_t d = loops_.size() - 1; d-- > 0; rest /= loops_[d]) offset += rest % loops_[d] * leaf.strides[d];
      return static_cast<const float*>(leaf.input >= 0 ? in[leaf.input] : leaf.constant.data()) + offset;
    };
    for (size_t i = 0; i < affine_->ops.size(); ++i) {
      const Affine::Op& op = affine_->ops[i];
      float* const to = values[i];
      if (op.kind == Affine::Op::kLeaf) {
        const float* const from = base(op.a);
        const bool periodic = leaves_[static_cast<size_t>(op.a)].walk == Leaf::kPeriodic;
        for (int64_t k = 0; k < width; ++k) to[k] = from[periodic ? k % period_ : 0];
        continue;
      }
      const float *a = values[op.a], *b = values[op.b < 0 ? op.a : op.b];
      for (int64_t k = 0; k < width; ++k)
        to[k] = op.kind == Affine::Op::kAdd   ? a[k] + b[k]
                : op.kind == Affine::Op::kSub ? a[k] - b[k]
                : op.kind == Affine::Op::kMul ? a[k] * b[k]
                                              : -a[k];
    }
    const float* x[kMostTerms];
    for (size_t t = 0; t < affine_->terms.size(); ++t) x[t] = base(affine_->terms[t].leaf) + column;
    // Where a period is several vectors, each of them goes over the tile while it is in cache.
    for (int64_t done = 0; done < n; done += kTile) {
      const float* part[kMostTerms];
      for (size_t t = 0; t < affine_->terms.size(); ++t) part[t] = x[t] + done;
      affine_tile(static_cast<int>(affine_->terms.size()), part, coefficients,
                  affine_->shift < 0 ? zero : values[affine_->shift], affine_->relu, width,
                  static_cast<float*>(out[0]) + at + done, std::min(kTile, n - done));
    }
    at += n;
  }
}

}  // namespace deepseek::backends::cpu
