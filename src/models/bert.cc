// BERT: "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", Devlin, Chang, Lee,
// Toutanova, 2018. Modules and parameters have Hugging Face's names, so its safetensors files load by name.
#include <cmath>

#include "models/zoo.h"
#include "nn/attention.h"
#include "ops/dsl.h"

namespace deepseek::models {

namespace {

using namespace nn;

constexpr double kEpsilon = 1e-12;  // of the layer norms, as in the published weights
constexpr double kHidden = -1e9;    // added to the scores of tokens that are not seen; finite, see nn/attention.h

struct BertSizes {
  int64_t vocabulary, width, layers, heads, feedforward, positions, classes;
  double dropout;
};

// Weights start as N(0, 0.02), biases as 0.
Tensor weights(Dims dims) { return default_initializer().normal(std::move(dims), 0, 0.02); }
std::shared_ptr<Linear> linear(int64_t in, int64_t out) {
  auto layer = std::make_shared<Linear>(in, out);
  layer->register_parameter("weight", {out, in}, weights);
  layer->register_parameter("bias", {out}, filled(0));
  return layer;
}
std::shared_ptr<Embedding> embedding(int64_t rows, int64_t width) {
  auto table = std::make_shared<Embedding>(rows, width);
  table->register_parameter("weight", {rows, width}, weights);
  return table;
}
std::shared_ptr<LayerNorm> layer_norm(int64_t width) { return std::make_shared<LayerNorm>(Dims{width}, kEpsilon); }
Expr gelu(Expr x) { return x.builder().op("gelu", {x}); }

// The sum of word, position and type vectors, normalised.
class BertEmbeddings : public Module {
 public:
  explicit BertEmbeddings(const BertSizes& s) {
    word = add("word_embeddings", embedding(s.vocabulary, s.width));
    position_ = add("position_embeddings", embedding(s.positions, s.width));
    type_ = add("token_type_embeddings", embedding(2, s.width));
    norm_ = add("LayerNorm", layer_norm(s.width));
    dropout_ = add("dropout", std::make_shared<Dropout>(s.dropout));
  }
  // Inputs: tokens [N, T] and, if defined, their types [N, T].
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override {
    Expr tokens = inputs[0];
    const auto row = [&](Expr table, int64_t count) { return ops::slice(table, 0, 0, count); };
    Expr types = inputs[1].defined() ? (*type_)(trace, inputs[1]) : row(trace.state(*type_, "weight"), 1);
    Expr x = (*word)(trace, tokens) + types + row(trace.state(*position_, "weight"), tokens.dim(1));
    return {(*dropout_)(trace, (*norm_)(trace, x))};
  }
  std::shared_ptr<Embedding> word;

 private:
  std::shared_ptr<Embedding> position_, type_;
  std::shared_ptr<LayerNorm> norm_;
  std::shared_ptr<Dropout> dropout_;
};

// dense, dropout, the residual, layer norm: the end of both halves of a layer.
class BertOutput : public Module {
 public:
  BertOutput(int64_t in, int64_t out, double dropout) {
    dense_ = add("dense", linear(in, out));
    norm_ = add("LayerNorm", layer_norm(out));
    dropout_ = add("dropout", std::make_shared<Dropout>(dropout));
  }
  // Inputs: x, residual.
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override {
    return {(*norm_)(trace, (*dropout_)(trace, (*dense_)(trace, inputs[0])) + inputs[1])};
  }

 private:
  std::shared_ptr<Linear> dense_;
  std::shared_ptr<LayerNorm> norm_;
  std::shared_ptr<Dropout> dropout_;
};

class BertSelfAttention : public Module {
 public:
  explicit BertSelfAttention(const BertSizes& s) : heads_(s.heads), rate_(s.dropout) {
    query_ = add("query", linear(s.width, s.width));
    key_ = add("key", linear(s.width, s.width));
    value_ = add("value", linear(s.width, s.width));
    dropout_ = add("dropout", std::make_shared<Dropout>(s.dropout));
  }
  // Inputs: x [N, T, width] and, if defined, what is added to the scores.
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override {
    Expr x = inputs[0], mask = inputs[1];
    const int64_t batch = x.dim(0), steps = x.dim(1), width = x.dim(2);
    const auto split = [&](Linear& project) {
      return ops::transpose(ops::reshape(project(trace, x), {batch, steps, heads_, width / heads_}), {0, 2, 1, 3});
    };
    Expr q = split(*query_), k = split(*key_), v = split(*value_), y;
    if (rate_ > 0 && trace.training(*this)) {  // the attention op has no dropout
      Expr scores = ops::matmul(q, k, false, true) * (1 / std::sqrt(static_cast<double>(width / heads_)));
      if (mask.defined()) scores = scores + mask;
      y = ops::matmul((*dropout_)(trace, trace.builder().op("softmax", {scores})), v);
    } else {
      std::vector<Expr> operands = {q, k, v};
      if (mask.defined()) operands.push_back(mask);
      y = trace.builder().op("attention", operands);
    }
    return {ops::reshape(ops::transpose(y, {0, 2, 1, 3}), {batch, steps, width})};
  }

 private:
  int64_t heads_;
  double rate_;
  std::shared_ptr<Linear> query_, key_, value_;
  std::shared_ptr<Dropout> dropout_;
};

class BertLayer : public Module {
 public:
  explicit BertLayer(const BertSizes& s) {
    auto attention = add("attention", std::make_shared<Sequential>());
    self_ = attention->add("self", std::make_shared<BertSelfAttention>(s));
    attended_ = attention->add("output", std::make_shared<BertOutput>(s.width, s.width, s.dropout));
    auto intermediate = add("intermediate", std::make_shared<Sequential>());
    inner_ = intermediate->add("dense", linear(s.width, s.feedforward));
    output_ = add("output", std::make_shared<BertOutput>(s.feedforward, s.width, s.dropout));
  }
  // Inputs: as BertSelfAttention.
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override {
    Expr x = attended_->call(trace, {self_->call(trace, inputs)[0], inputs[0]})[0];
    return {output_->call(trace, {gelu((*inner_)(trace, x)), x})[0]};
  }

 private:
  std::shared_ptr<BertSelfAttention> self_;
  std::shared_ptr<BertOutput> attended_, output_;
  std::shared_ptr<Linear> inner_;
};

// Embeddings (unless the samples are vectors), layers, and the pooler where it is asked for.
class Bert : public Module {
 public:
  Bert(const BertSizes& s, bool pooled) {
    if (s.vocabulary > 0) embeddings_ = add("embeddings", std::make_shared<BertEmbeddings>(s));
    auto list = add("encoder", std::make_shared<Sequential>())->add("layer", std::make_shared<Sequential>());
    for (int64_t i = 0; i < s.layers; ++i) {
      layers_.push_back(std::make_shared<BertLayer>(s));
      list->append(layers_.back());
    }
    if (pooled) pooler_ = add("pooler", std::make_shared<Sequential>())->add("dense", linear(s.width, s.width));
  }
  // Inputs: tokens [N, T] or vectors [N, T, width], attention mask, token types. The vectors of all tokens, or the
  // pooler's of the first.
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override {
    const auto integers = [&](size_t i) {
      if (i >= inputs.size() || !inputs[i].defined()) return Expr();
      return is_float(inputs[i].dtype()) ? ops::cast(inputs[i], DType::kI64) : inputs[i];
    };
    Expr x = embeddings_ ? embeddings_->call(trace, {integers(0), integers(2)})[0] : inputs[0];
    Expr mask;
    if (inputs.size() > 1 && inputs[1].defined()) {
      Expr hidden = ops::cast(ops::equal(inputs[1], ops::zeros_like(inputs[1])), x.dtype()) * kHidden;
      mask = ops::reshape(hidden, {x.dim(0), 1, 1, x.dim(1)});
    }
    for (const auto& layer : layers_) x = layer->call(trace, {x, mask})[0];
    if (!pooler_) return {x};
    Expr first = ops::reshape(ops::slice(x, 1, 0, 1), {x.dim(0), x.dim(2)});
    return {ops::tanh((*pooler_)(trace, first))};
  }
  const Embedding& words() const { return *embeddings_->word; }

 private:
  std::shared_ptr<BertEmbeddings> embeddings_;
  std::vector<std::shared_ptr<BertLayer>> layers_;
  std::shared_ptr<Linear> pooler_;
};

class BertClassifier : public Module {
 public:
  explicit BertClassifier(const BertSizes& s) {
    bert_ = add("bert", std::make_shared<Bert>(s, true));
    dropout_ = add("dropout", std::make_shared<Dropout>(s.dropout));
    classifier_ = add("classifier", linear(s.width, s.classes));
  }
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override {
    return {(*classifier_)(trace, (*dropout_)(trace, bert_->call(trace, inputs)[0]))};
  }

 private:
  std::shared_ptr<Bert> bert_;
  std::shared_ptr<Dropout> dropout_;
  std::shared_ptr<Linear> classifier_;
};

// Predicts the token at each place: dense, gelu, layer norm, then the word embeddings as decoder, with a bias.
class MaskedLanguageHead : public Module {
 public:
  MaskedLanguageHead(const BertSizes& s, std::shared_ptr<Bert> bert) : bert_(std::move(bert)) {
    register_parameter("bias", {s.vocabulary}, filled(0));
    auto transform = add("transform", std::make_shared<Sequential>());
    dense_ = transform->add("dense", linear(s.width, s.width));
    norm_ = transform->add("LayerNorm", layer_norm(s.width));
  }
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override {
    Expr x = (*norm_)(trace, gelu((*dense_)(trace, inputs[0])));
    return {ops::matmul(x, trace.state(bert_->words(), "weight"), false, true) + trace.state(*this, "bias")};
  }

 private:
  std::shared_ptr<Bert> bert_;
  std::shared_ptr<Linear> dense_;
  std::shared_ptr<LayerNorm> norm_;
};

class BertMaskedLanguage : public Module {
 public:
  explicit BertMaskedLanguage(const BertSizes& s) {
    bert_ = add("bert", std::make_shared<Bert>(s, false));
    head_ =
        add("cls", std::make_shared<Sequential>())->add("predictions", std::make_shared<MaskedLanguageHead>(s, bert_));
  }
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override {
    return {(*head_)(trace, bert_->call(trace, inputs)[0])};
  }

 private:
  std::shared_ptr<Bert> bert_;
  std::shared_ptr<MaskedLanguageHead> head_;
};

}  // namespace

Result<ModulePtr> make_bert(const std::string& name, const ModelData& data, const Parameters& parameters) {
  const bool large = name == "bert_large";
  DS_TRY(only(parameters, {"vocabulary", "width", "layers", "heads", "feedforward", "positions", "dropout", "head"},
              name));
  DS_ASSIGN(int64_t vocabulary, integer(parameters, "vocabulary", 30522, 1, int64_t{1} << 31));
  DS_ASSIGN(const int64_t width, integer(parameters, "width", large ? 1024 : 768, 1, 1 << 16));
  DS_ASSIGN(const int64_t layers, integer(parameters, "layers", large ? 24 : 12, 1, 1000));
  DS_ASSIGN(const int64_t heads, integer(parameters, "heads", large ? 16 : 12, 1, 1024));
  DS_ASSIGN(const int64_t feedforward, integer(parameters, "feedforward", 4 * width, 1, 1 << 20));
  DS_ASSIGN(const int64_t positions, integer(parameters, "positions", 512, 1, 1 << 24));
  DS_ASSIGN(const double dropout, number(parameters, "dropout", 0.1, 0, 0.99));
  DS_ASSIGN(const std::string head, choice(parameters, "head", {"classifier", "mlm", "pooler", "none"}));
  if (width % heads != 0)
    return invalid("model.heads: expected a divisor of model.width {}, got {}; change one of them", width, heads);
  const bool vectors = data.input.size() == 2;
  if (vectors ? data.input[1] != width || head != "none" || parameters.contains("vocabulary") : data.input.size() != 1)
    return invalid(
        "model '{}' takes tokens [T], or vectors [T, {}] with model.head=none and no vocabulary; the data has "
        "samples "
        "of shape {}, the head is '{}'",
        name, width, graph::to_string(data.input), head);
  if (!vectors && data.input[0] > positions)
    return invalid("model.positions: {} tokens need as many positions, got {}", data.input[0], positions);
  if (vectors) vocabulary = 0;
  const BertSizes sizes{vocabulary, width, layers, heads, feedforward, positions, data.classes, dropout};
  if (head == "classifier") return ModulePtr(std::make_shared<BertClassifier>(sizes));
  if (head == "mlm") return ModulePtr(std::make_shared<BertMaskedLanguage>(sizes));
  return ModulePtr(std::make_shared<Bert>(sizes, head == "pooler"));
}

}  // namespace deepseek::models
