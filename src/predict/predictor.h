// Raw data in, predictions out: files and folders go through what the model file says of its training data, then the model,
// and come out as a table with a row for each sample. Test: tests/predict/predictor_test.cc,
// tests/python/test_predict.py
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/sources.h"
#include "data/table_writer.h"
#include "infer/session.h"

namespace deepseek::predict {

// A run folder's model file, or the path itself. Errors: kNotFound for a folder without one, which says how to get it.
Result<std::string> model_path(const std::string& run_or_model);

struct PredictOptions {
  // What evaluation in training takes at once: equal sizes give equal bits.
  int64_t batch_size = 256;
};

class Predictor {
 public:
  explicit Predictor(std::shared_ptr<infer::Session> session, PredictOptions options = {})
      : session_(std::move(session)), options_(options) {}

  // After each batch: samples done and all; false: stop, with kInterrupted.
  using Progress = std::function<bool(int64_t done, int64_t total)>;

  // Of each sample of `paths` in order, in parts: the label of the sample ("row" or "file", and "input" before it where
  // there are several paths and rows are numbered), then of each output: of classes "prediction" (the class's name),
  // "probability", and for up to kMostClasses classes "probability_<class>" of each; of numbers "prediction", or
  // "prediction_0", ... of several. With several outputs their names come first: "kind_prediction". Errors: those of
  // data::open_input() and Session::run(); a model whose outputs are not [N, ...].
  Status predict(const std::vector<std::string>& paths, const data::WritePart& write, const Progress& progress = {});

  static constexpr int64_t kMostClasses = 100;

 private:
  Result<data::TablePart> part_of(const std::map<std::string, graph::Tensor>& outputs, int64_t rows) const;

  std::shared_ptr<infer::Session> session_;
  PredictOptions options_;
};

// softmax over axis 1 of logits [N, C] of one row, or of one logit [N] or [N, 1] against 0 where there are two classes.
std::vector<double> probabilities(const graph::Tensor& logits, int64_t row, int64_t classes);

}  // namespace deepseek::predict
