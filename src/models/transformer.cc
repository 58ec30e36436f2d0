// Transformer encoder classifier: "Attention Is All You Need", Vaswani et al., 2017, with the normalisation before each
// part, GELU, learned positions and the mean over the steps. Sequences [T, F], or tokens [T] where `vocabulary` is
// given.
#include "models/zoo.h"
#include "nn/attention.h"
#include "ops/dsl.h"

namespace deepseek::models {

namespace {

using namespace nn;

struct Sizes {
  int64_t steps, features, vocabulary, width, layers, heads, classes;
};

class TransformerClassifier : public Module {
 public:
  explicit TransformerClassifier(const Sizes& s) {
    if (s.vocabulary > 0)
      embedding_ = add("embedding", std::make_shared<Embedding>(s.vocabulary, s.width));
    else
      input_ = add("input", std::make_shared<Linear>(s.features, s.width));
    register_parameter("position", {s.steps, s.width}, default_initializer().normal(0, 0.02));
    std::vector<std::shared_ptr<TransformerEncoderLayer>> layers;
    for (int64_t i = 0; i < s.layers; ++i)
      layers.push_back(std::make_shared<TransformerEncoderLayer>(s.width, s.heads,
                                                                 EncoderOptions{.feedforward = 4 * s.width,
                                                                                .dropout = 0,
                                                                                .activation = "gelu",
                                                                                .batch_first = true,
                                                                                .norm_first = true}));
    encoder_ = add("encoder", std::make_shared<TransformerEncoder>(layers, std::make_shared<LayerNorm>(Dims{s.width})));
    head_ = add("head", std::make_shared<Linear>(s.width, s.classes));
  }
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override {
    Expr x = inputs[0];
    if (embedding_)
      x = (*embedding_)(trace, is_float(x.dtype()) ? ops::cast(x, DType::kI64) : x);
    else
      x = (*input_)(trace, x);
    x = (*encoder_)(trace, x + trace.state(*this, "position"));
    return {(*head_)(trace, ops::mean(x, {1}))};
  }

 private:
  std::shared_ptr<Embedding> embedding_;
  std::shared_ptr<Linear> input_, head_;
  std::shared_ptr<TransformerEncoder> encoder_;
};

}  // namespace

Result<ModulePtr> make_transformer(const std::string& name, const ModelData& data, const Parameters& parameters) {
  DS_TRY(only(parameters, {"width", "layers", "heads", "vocabulary"}, name));
  DS_ASSIGN(const int64_t width, integer(parameters, "width", 128, 1, 1 << 16));
  DS_ASSIGN(const int64_t layers, integer(parameters, "layers", 2, 1, 1000));
  DS_ASSIGN(const int64_t heads, integer(parameters, "heads", 4, 1, 1024));
  DS_ASSIGN(const int64_t vocabulary, integer(parameters, "vocabulary", 0, 0, int64_t{1} << 31));
  if (width % heads != 0)
    return invalid("model.heads: expected a divisor of model.width {}, got {}; change one of them", width, heads);
  DS_TRY(check_sequence(data, vocabulary, name));
  return ModulePtr(std::make_shared<TransformerClassifier>(
      Sizes{data.input[0], vocabulary > 0 ? 0 : data.input[1], vocabulary, width, layers, heads, data.classes}));
}

}  // namespace deepseek::models
