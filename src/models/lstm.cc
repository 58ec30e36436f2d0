// LSTM classifier: "Long Short-Term Memory", Hochreiter, Schmidhuber, 1997; with a forget gate, as everywhere today.
// Sequences [T, F], or tokens [T] where `vocabulary` is given; the output of the last step goes to the classifier.
#include "models/zoo.h"
#include "nn/layers.h"
#include "nn/recurrent.h"
#include "ops/dsl.h"

namespace deepseek::models {

namespace {

using namespace nn;

class LstmClassifier : public Module {
 public:
  LstmClassifier(int64_t features, int64_t vocabulary, int64_t width, int64_t layers, int64_t classes) {
    if (vocabulary > 0) embedding_ = add("embedding", std::make_shared<Embedding>(vocabulary, width));
    lstm_ = add("lstm", std::make_shared<LSTM>(vocabulary > 0 ? width : features, width,
                                               RecurrentOptions{.layers = layers, .batch_first = true}));
    head_ = add("head", std::make_shared<Linear>(width, classes));
  }
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override {
    Expr x = inputs[0];
    if (embedding_) x = (*embedding_)(trace, is_float(x.dtype()) ? ops::cast(x, DType::kI64) : x);
    Expr y = (*lstm_)(trace, x);
    const int64_t steps = y.dim(1);
    return {(*head_)(trace, ops::reshape(ops::slice(y, 1, steps - 1, steps), {y.dim(0), y.dim(2)}))};
  }

 private:
  std::shared_ptr<Embedding> embedding_;
  std::shared_ptr<LSTM> lstm_;
  std::shared_ptr<Linear> head_;
};

}  // namespace

Result<ModulePtr> make_lstm(const std::string& name, const ModelData& data, const Parameters& parameters) {
  DS_TRY(only(parameters, {"width", "layers", "vocabulary"}, name));
  DS_ASSIGN(const int64_t width, integer(parameters, "width", 128, 1, 1 << 16));
  DS_ASSIGN(const int64_t layers, integer(parameters, "layers", 1, 1, 100));
  DS_ASSIGN(const int64_t vocabulary, integer(parameters, "vocabulary", 0, 0, int64_t{1} << 31));
  DS_TRY(check_sequence(data, vocabulary, name));
  return ModulePtr(
      std::make_shared<LstmClassifier>(vocabulary > 0 ? 0 : data.input[1], vocabulary, width, layers, data.classes));
}

}  // namespace deepseek::models
