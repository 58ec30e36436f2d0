// Seeded data for op samples, and their graphs. Shared by the tests that walk the registry.
#pragma once

#include <random>

#include "graph/builder.h"
#include "ops/registry.h"

namespace deepseek::testing {

inline std::vector<graph::RefTensor> sample_inputs(const graph::Sample& sample) {
  std::mt19937 random(1234);
  std::vector<graph::RefTensor> inputs;
  for (const graph::SampleInput& spec : sample.inputs) {
    graph::RefTensor t(spec.type);
    double total = 0;
    for (double& x : t.data) {
      switch (spec.fill) {
        case graph::Fill::kNormal: x = std::normal_distribution<double>()(random); break;
        case graph::Fill::kUniform01: x = std::uniform_real_distribution<double>(0.01, 0.99)(random); break;
        case graph::Fill::kPositive: x = std::uniform_real_distribution<double>(0.5, 2.0)(random); break;
        case graph::Fill::kIndices: x = static_cast<double>(random() % static_cast<uint32_t>(spec.limit)); break;
        case graph::Fill::kBool: x = static_cast<double>(random() % 2); break;
        case graph::Fill::kProbabilities: x = std::uniform_real_distribution<double>(0.1, 1.0)(random); break;
      }
      if (is_float(spec.type.dtype)) x = static_cast<float>(x);
      total += x;
    }
    if (spec.fill == graph::Fill::kProbabilities)
      for (double& x : t.data) x /= total;
    inputs.push_back(std::move(t));
  }
  return inputs;
}

inline Result<graph::Graph> sample_graph(const graph::OpDef& def, const graph::Sample& sample) {
  graph::Builder builder(ops::registry());
  std::vector<graph::Expr> inputs;
  for (size_t i = 0; i < sample.inputs.size(); ++i)
    inputs.push_back(builder.input("x" + std::to_string(i), sample.inputs[i].type));
  graph::Scope scope(builder, "sample");
  const std::vector<graph::Expr> outputs = builder.emit(def.name.value, inputs, sample.attrs);
  for (size_t i = 0; i < outputs.size(); ++i) builder.output("y" + std::to_string(i), outputs[i]);
  return builder.finish();
}

inline graph::Tensor to_tensor(const graph::RefTensor& t) {
  return graph::Tensor::from<double>(t.dtype, t.dims, t.data);
}

}  // namespace deepseek::testing
