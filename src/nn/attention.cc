#include "nn/attention.h"

#include <cmath>
#include <cstring>

#include "ops/dsl.h"

namespace deepseek::nn {

namespace {

double xavier_bound(int64_t rows, int64_t columns) { return std::sqrt(6.0 / static_cast<double>(rows + columns)); }

// Half of what the op attention takes for hidden in f16, as two masks may be added.
double hidden_score(DType dtype) { return dtype == DType::kF16 ? -3e4 : -1e30; }

// A mask as a number to add to scores of `like`'s dtype.
Expr additive(Expr mask, Expr like) {
  if (mask.dtype() != DType::kBool) return ops::cast(mask, like.dtype());
  return ops::select(mask, ops::constant_like(like, hidden_score(like.dtype())), ops::constant_like(like, 0));
}

Expr causal_mask(Expr like, int64_t queries, int64_t keys) {
  Builder& b = like.builder();
  Expr row = b.op("iota", {}, {{"dims", Dims{queries, 1}}, {"axis", int64_t{0}}});
  Expr column = b.op("iota", {}, {{"dims", Dims{1, keys}}, {"axis", int64_t{1}}});
  return additive(ops::less(row, column), like);
}

Expr dropout(Trace& trace, Expr x, double rate) {
  return trace.builder().op("dropout", {x, trace.random_state()}, {{"rate", rate}, {"stream", trace.next_stream()}});
}

bool same(Expr a, Expr b) { return a.value().id == b.value().id; }

AttentionMasks masks_of(const std::vector<Expr>& inputs, size_t first) {
  return {inputs.size() > first ? inputs[first] : Expr(), inputs.size() > first + 1 ? inputs[first + 1] : Expr()};
}

}  // namespace

MultiheadAttention::MultiheadAttention(int64_t width, int64_t heads, AttentionOptions options)
    : width_(width), heads_(heads), options_(options) {
  if (options_.key_width == 0) options_.key_width = width;
  if (options_.value_width == 0) options_.value_width = width;
  if (!require(width >= 1 && heads >= 1 && width % heads == 0,
               "MultiheadAttention: expected heads to divide the width, got embed_dim {} and num_heads {}", width,
               heads) ||
      !require(options_.key_width >= 1 && options_.value_width >= 1,
               "MultiheadAttention: expected kdim and vdim >= 1, got {} and {}", options_.key_width,
               options_.value_width) ||
      !require(options_.dropout >= 0 && options_.dropout < 1, "MultiheadAttention: expected dropout in [0, 1), got {}",
               options_.dropout) ||
      !require_possible("MultiheadAttention", {width, options_.key_width, options_.value_width}))
    return;
  const auto projection = [&](const char* name, int64_t rows, int64_t columns) {
    register_parameter(name, {rows, columns}, default_initializer().uniform(xavier_bound(rows, columns)));
  };
  if (options_.key_width == width && options_.value_width == width) {
    projection("in_proj_weight", 3 * width, width);
  } else {
    projection("q_proj_weight", width, width);
    projection("k_proj_weight", width, options_.key_width);
    projection("v_proj_weight", width, options_.value_width);
  }
  if (options_.bias) register_parameter("in_proj_bias", {3 * width}, filled(0));
  out_proj_ = add("out_proj", std::make_shared<Linear>(width, width, options_.bias));
  if (options_.bias && out_proj_->status().ok())
    std::memset(out_proj_->own_state()[1].value.data(), 0, out_proj_->own_state()[1].value.num_bytes());
}

// [N, L, E] of query, key and value.
std::vector<Expr> MultiheadAttention::project(Trace& trace, const std::vector<Expr>& in) {
  const bool packed = options_.key_width == width_ && options_.value_width == width_;
  Expr bias = options_.bias ? trace.state(*this, "in_proj_bias") : Expr();
  std::vector<Expr> out;
  if (packed && same(in[0], in[1]) && same(in[0], in[2])) {
    Expr all = ops::matmul(in[0], trace.state(*this, "in_proj_weight"), false, true);
    if (options_.bias) all = all + bias;
    for (int64_t i = 0; i < 3; ++i) out.push_back(ops::slice(all, 2, i * width_, (i + 1) * width_));
    return out;
  }
  constexpr const char* kNames[] = {"q_proj_weight", "k_proj_weight", "v_proj_weight"};
  for (int64_t i = 0; i < 3; ++i) {
    Expr weight = packed ? ops::slice(trace.state(*this, "in_proj_weight"), 0, i * width_, (i + 1) * width_)
                         : trace.state(*this, kNames[i]);
    Expr y = ops::matmul(in[static_cast<size_t>(i)], weight, false, true);
    out.push_back(options_.bias ? y + ops::slice(bias, 0, i * width_, (i + 1) * width_) : y);
  }
  return out;
}

std::vector<Expr> MultiheadAttention::attend(Trace& trace, Expr query, Expr key, Expr value,
                                             const AttentionMasks& masks, bool weights) {
  ModuleScope scope(trace, *this);
  Builder& b = trace.builder();
  if (!status().ok()) return std::vector<Expr>(weights ? 2 : 1, Expr(&b, {}));
  std::vector<Expr> in = {query, key, value};
  for (Expr& x : in)
    if (x.rank() != 3) {
      b.fail(invalid("MultiheadAttention: expected query, key and value of 3 axes, [{}], got {}",
                     options_.batch_first ? "batch, length, width" : "length, batch, width",
                     graph::to_string(x.type())));
      return std::vector<Expr>(weights ? 2 : 1, Expr(&b, {}));
    }
  if (!options_.batch_first) {
    const bool self = same(query, key) && same(query, value);
    in[0] = ops::transpose(in[0], {1, 0, 2});
    in[1] = self ? in[0] : ops::transpose(in[1], {1, 0, 2});
    in[2] = self ? in[0] : same(key, value) ? in[1] : ops::transpose(in[2], {1, 0, 2});
  }
  std::vector<Expr> heads = project(trace, in);
  for (Expr& x : heads)
    x = ops::transpose(ops::reshape(x, {x.dim(0), x.dim(1), heads_, width_ / heads_}), {0, 2, 1, 3});
  Expr q = heads[0], k = heads[1], v = heads[2];
  const int64_t batch = q.dim(0), queries = q.dim(2), keys = k.dim(2);

  Expr mask;
  const auto hide = [&](Expr more) { mask = mask.defined() ? mask + more : more; };
  if (masks.attention.defined()) {
    Expr m = additive(masks.attention, q);
    hide(m.rank() == 3 ? ops::reshape(m, {batch, heads_, queries, keys}) : m);
  }
  if (masks.key_padding.defined()) hide(ops::reshape(additive(masks.key_padding, q), {batch, 1, 1, keys}));

  const bool drops = options_.dropout > 0 && trace.training(*this);
  Expr y, p;
  if (weights || drops) {
    if (masks.causal) hide(causal_mask(q, queries, keys));
    Expr scores = ops::matmul(q * (1 / std::sqrt(static_cast<double>(width_ / heads_))), k, false, true);
    if (mask.defined()) {  // as in the op attention, no score is -inf
      scores = ops::maximum(scores + mask, ops::constant_like(scores, scores.dtype() == DType::kF16 ? -6e4 : -1e30));
    }
    p = b.op("softmax", {scores});
    if (drops) p = dropout(trace, p, options_.dropout);
    y = ops::matmul(p, v);
  } else {
    std::vector<Expr> args = {q, k, v};
    if (mask.defined()) args.push_back(mask);
    y = b.op("attention", args, {{"causal", masks.causal}});
  }
  y = (*out_proj_)(trace, ops::reshape(ops::transpose(y, {0, 2, 1, 3}), {batch, queries, width_}));
  if (!options_.batch_first) y = ops::transpose(y, {1, 0, 2});
  return weights ? std::vector<Expr>{y, p} : std::vector<Expr>{y};
}

std::vector<Expr> MultiheadAttention::forward(Trace& trace, const std::vector<Expr>& inputs) {
  return attend(trace, inputs[0], inputs[inputs.size() > 1 ? 1 : 0], inputs[inputs.size() > 2 ? 2 : 0],
                masks_of(inputs, 3), false);
}

TransformerEncoderLayer::TransformerEncoderLayer(int64_t width, int64_t heads, EncoderOptions options)
    : width_(width), heads_(heads), options_(std::move(options)) {
  if (!require(width >= 1 && heads >= 1 && width % heads == 0 && options_.feedforward >= 1,
               "TransformerEncoderLayer: expected heads to divide the width and a feed-forward width >= 1, got d_model "
               "{}, nhead {} and dim_feedforward {}",
               width, heads, options_.feedforward) ||
      !require(options_.dropout >= 0 && options_.dropout < 1,
               "TransformerEncoderLayer: expected dropout in [0, 1), got {}", options_.dropout) ||
      !require_possible("TransformerEncoderLayer", {width, options_.feedforward}))
    return;
  const bool bias = options_.bias;
  self_attn_ =
      add("self_attn",
          std::make_shared<MultiheadAttention>(
              width, heads,
              AttentionOptions{.dropout = options_.dropout, .bias = bias, .batch_first = options_.batch_first}));
  linear1_ = add("linear1", std::make_shared<Linear>(width, options_.feedforward, bias));
  dropout_ = add("dropout", std::make_shared<Dropout>(options_.dropout));
  linear2_ = add("linear2", std::make_shared<Linear>(options_.feedforward, width, bias));
  norm1_ = add("norm1", std::make_shared<LayerNorm>(Dims{width}, options_.epsilon, true, bias));
  norm2_ = add("norm2", std::make_shared<LayerNorm>(Dims{width}, options_.epsilon, true, bias));
  dropout1_ = add("dropout1", std::make_shared<Dropout>(options_.dropout));
  dropout2_ = add("dropout2", std::make_shared<Dropout>(options_.dropout));
}

Expr TransformerEncoderLayer::encode(Trace& trace, Expr x, const AttentionMasks& masks) {
  ModuleScope scope(trace, *this);
  if (!status().ok()) return {&trace.builder(), {}};
  const auto attention = [&](Expr v) {
    return (*dropout1_)(trace, self_attn_->attend(trace, v, v, v, masks, false)[0]);
  };
  const auto feedforward = [&](Expr v) {
    Expr inner = trace.builder().op(options_.activation, {(*linear1_)(trace, v)});
    return (*dropout2_)(trace, (*linear2_)(trace, (*dropout_)(trace, inner)));
  };
  if (options_.norm_first) {
    x = x + attention((*norm1_)(trace, x));
    return x + feedforward((*norm2_)(trace, x));
  }
  x = (*norm1_)(trace, x + attention(x));
  return (*norm2_)(trace, x + feedforward(x));
}

std::vector<Expr> TransformerEncoderLayer::forward(Trace& trace, const std::vector<Expr>& inputs) {
  return {encode(trace, inputs[0], masks_of(inputs, 1))};
}

std::shared_ptr<TransformerEncoderLayer> TransformerEncoderLayer::clone() const {
  auto copy = std::make_shared<TransformerEncoderLayer>(width_, heads_, options_);
  const std::vector<State> from = named_state(), to = copy->named_state();
  for (size_t i = 0; i < from.size(); ++i)
    std::memcpy(to[i].value.data(), from[i].value.data(), from[i].value.num_bytes());
  return copy;
}

TransformerEncoder::TransformerEncoder(std::vector<std::shared_ptr<TransformerEncoderLayer>> layers, ModulePtr norm)
    : layers_(std::move(layers)), norm_(std::move(norm)) {
  auto list = std::make_shared<Sequential>();
  for (const auto& layer : layers_) list->append(layer);
  register_module("layers", list);
  if (norm_) register_module("norm", norm_);
}

Expr TransformerEncoder::encode(Trace& trace, Expr x, const AttentionMasks& masks) {
  for (const auto& layer : layers_) x = layer->encode(trace, x, masks);
  return norm_ ? (*norm_)(trace, x) : x;
}

std::vector<Expr> TransformerEncoder::forward(Trace& trace, const std::vector<Expr>& inputs) {
  return {encode(trace, inputs[0], masks_of(inputs, 1))};
}

}  // namespace deepseek::nn
