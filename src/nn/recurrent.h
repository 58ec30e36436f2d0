// Recurrent layers: stacked, in both directions, time or batch first. Names, shapes and initial distributions are
// PyTorch's (weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, ..._reverse). Test: tests/nn/layers_test.cc
#pragma once

#include "nn/module.h"

namespace deepseek::nn {

struct RecurrentOptions {
  int64_t layers = 1;
  bool bias = true;
  bool batch_first = false;  // x and y are [N, T, ...] rather than [T, N, ...]
  double dropout = 0;        // between layers, in training
  bool bidirectional = false;
};

// Inputs: x [T, N, input], then the state before the first step, [layers * directions, N, hidden] each (zeros where
// absent). Outputs: y [T, N, directions * hidden], then the state after the last step.
class Recurrent : public Module {
 public:
  std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) override;
  std::vector<Setting> settings() override {
    return {{"input_size", &input_, Setting::kFixed},
            {"hidden_size", &hidden_, Setting::kFixed},
            {"num_layers", &options_.layers, Setting::kFixed},
            {"bias", &options_.bias, Setting::kFixed},
            {"batch_first", &options_.batch_first},
            {"dropout", &options_.dropout},
            {"bidirectional", &options_.bidirectional, Setting::kFixed}};
  }

 protected:
  Recurrent(const char* op, int64_t gates, int64_t states, int64_t input, int64_t hidden, RecurrentOptions options);

 private:
  std::vector<Expr> run(Trace& trace, Expr x, std::vector<Expr> states, const std::string& suffix, bool reverse);
  const char* op_;
  int64_t gates_, states_, input_, hidden_;
  RecurrentOptions options_;
};

// States h and c; gates in the order input, forget, cell, output.
class LSTM : public Recurrent {
 public:
  LSTM(int64_t input, int64_t hidden, RecurrentOptions options = {})
      : Recurrent("lstm", 4, 2, input, hidden, options) {}
};

// State h; gates in the order reset, update, new.
class GRU : public Recurrent {
 public:
  GRU(int64_t input, int64_t hidden, RecurrentOptions options = {}) : Recurrent("gru", 3, 1, input, hidden, options) {}
};

}  // namespace deepseek::nn
