// Attention and the Transformer's encoder (arXiv 1706.03762). Names, shapes and initial distributions are PyTorch's.
// Masks hide by a large finite negative, so a row that sees no key attends evenly rather than giving NaN.
// Test: tests/nn/layers_test.cc
#pragma once

#include "nn/layers.h"
#include "nn/norm.h"

namespace deepseek::nn {

// Masks are bool, true where a key is hidden, or floats that are added to the scores. Undefined: nothing is hidden.
struct AttentionMasks {
  Expr attention = {};    // [L, S] or [N * heads, L, S]
  Expr key_padding = {};  // [N, S]
  bool causal = false;    // position i sees keys 0 to i only
};

struct AttentionOptions {
  double dropout = 0;  // of the attention weights, in training
  bool bias = true;
  bool batch_first = false;                // [N, L, E] rather than [L, N, E]
  int64_t key_width = 0, value_width = 0;  // 0: the embedding's width
};

// in_proj_weight [3E, E] (or q_proj_weight, k_proj_weight, v_proj_weight where the widths differ), in_proj_bias [3E],
// out_proj.weight [E, E], out_proj.bias [E]. Projections start Xavier uniform, the biases as 0.
class MultiheadAttention : public Module {
 public:
  MultiheadAttention(int64_t width, int64_t heads, AttentionOptions options = {});
  // y, and with `weights` also the attention weights [N, heads, L, S].
  std::vector<Expr> attend(Trace& trace, Expr query, Expr key, Expr value, const AttentionMasks& masks, bool weights);
  // Inputs: query, key, value, and optionally the attention and the key padding mask. One output.
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;
  std::vector<Setting> settings() override {
    return {{"embed_dim", &width_, Setting::kFixed},
            {"num_heads", &heads_, Setting::kFixed},
            {"dropout", &options_.dropout},
            {"bias", &options_.bias, Setting::kHidden},
            {"batch_first", &options_.batch_first},
            {"kdim", &options_.key_width, Setting::kFixed},
            {"vdim", &options_.value_width, Setting::kFixed}};
  }

 private:
  std::vector<Expr> project(Trace& trace, const std::vector<Expr>& inputs);
  int64_t width_, heads_;
  AttentionOptions options_;
  std::shared_ptr<Linear> out_proj_;
};

struct EncoderOptions {
  int64_t feedforward = 2048;
  double dropout = 0.1;
  std::string activation = "relu";  // an op of one input
  double epsilon = 1e-5;
  bool batch_first = false, norm_first = false, bias = true;
};

// Attention and a feed-forward net, each with a residual and a normalisation.
class TransformerEncoderLayer : public Module {
 public:
  TransformerEncoderLayer(int64_t width, int64_t heads, EncoderOptions options = {});
  Expr encode(Trace& trace, Expr x, const AttentionMasks& masks);
  // Inputs: x, and optionally the attention and the key padding mask.
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;
  std::vector<Setting> settings() override {
    return {{"d_model", &width_, Setting::kFixed},
            {"nhead", &heads_, Setting::kFixed},
            {"dim_feedforward", &options_.feedforward, Setting::kFixed},
            {"dropout", &options_.dropout, Setting::kHidden},  // an attribute's name is the module's
            {"activation", &options_.activation},
            {"layer_norm_eps", &options_.epsilon, Setting::kHidden},
            {"batch_first", &options_.batch_first, Setting::kFixed},
            {"norm_first", &options_.norm_first},
            {"bias", &options_.bias, Setting::kHidden}};
  }
  // A new layer with the same options and weights.
  std::shared_ptr<TransformerEncoderLayer> clone() const;

 private:
  int64_t width_, heads_;
  EncoderOptions options_;
  std::shared_ptr<MultiheadAttention> self_attn_;
  std::shared_ptr<Linear> linear1_, linear2_;
  std::shared_ptr<LayerNorm> norm1_, norm2_;
  std::shared_ptr<Dropout> dropout_, dropout1_, dropout2_;
};

// Layers "layers.0", "layers.1", ... and an optional last normalisation "norm".
class TransformerEncoder : public Module {
 public:
  explicit TransformerEncoder(std::vector<std::shared_ptr<TransformerEncoderLayer>> layers, ModulePtr norm = nullptr);
  Expr encode(Trace& trace, Expr x, const AttentionMasks& masks);
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;

 private:
  std::vector<std::shared_ptr<TransformerEncoderLayer>> layers_;
  ModulePtr norm_;
};

}  // namespace deepseek::nn
