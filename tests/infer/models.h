// Small models for the tests of this folder, and what they compute by plain loops.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "infer/model_file.h"
#include "ops/dsl.h"
#include "ops/registry.h"

namespace deepseek::infer {

inline double weight(int64_t i, double shift) { return static_cast<double>((i * 37 + 11) % 101) / 100 - shift; }
inline graph::Tensor weights(graph::Dims dims, double shift) {
  graph::Tensor t(DType::kF32, std::move(dims));
  for (int64_t i = 0; i < t.num_elements(); ++i) t.set(i, weight(i, shift));
  return t;
}

// hidden = relu(x w + table), with a constant of `width` numbers; logits = hidden v.
inline graph::Graph mlp_graph(int64_t n, int64_t width) {
  graph::Builder b(ops::registry());
  const graph::Expr x = b.input("x", {DType::kF32, {n, 4}});
  const graph::Expr w = b.state("w", {DType::kF32, {4, width}}), v = b.state("v", {DType::kF32, {width, 3}});
  const graph::Expr table = b.constant(weights({width}, 0.3));
  const graph::Expr hidden = ops::relu(ops::matmul(x, w) + table);
  b.output("hidden", hidden);
  b.output("logits", ops::matmul(hidden, v));
  Result<graph::Graph> graph = b.finish();
  EXPECT_TRUE(graph.ok()) << graph.status().to_string();
  return *graph;
}
inline const graph::Tensor& mlp_table(const graph::Graph& graph) {
  return graph.nodes()[0].attrs.get<graph::Tensor>("value");
}
inline double mlp_hidden(const graph::Tensor& x, int64_t row, int64_t i, int64_t width) {
  double sum = weight(i, 0.3);
  for (int64_t k = 0; k < 4; ++k) sum += x.at(row * 4 + k) * weight(k * width + i, 0.5);
  return std::max(sum, 0.0);
}
inline double mlp_logit(const graph::Tensor& x, int64_t row, int64_t j, int64_t width) {
  double sum = 0;
  for (int64_t i = 0; i < width; ++i) sum += mlp_hidden(x, row, i, width) * weight(i * 3 + j, 0.4);
  return sum;
}

// A model of these graphs, with the signature that they have.
inline ModelFile model_of(std::vector<graph::Graph> graphs, std::map<std::string, graph::Tensor> weights) {
  ModelFile model;
  model.graphs = std::move(graphs);
  model.weights = std::move(weights);
  Result<Signature> signature = signature_of(model.graphs);
  EXPECT_TRUE(signature.ok()) << signature.status().to_string();
  if (signature.ok()) model.signature = *signature;
  return model;
}

// With the graphs for the sizes 2 and 3, or for `fixed` alone.
inline ModelFile mlp(int64_t width, int64_t fixed = 0) {
  std::vector<graph::Graph> graphs{mlp_graph(fixed > 0 ? fixed : 2, width)};
  if (fixed == 0) graphs.push_back(mlp_graph(3, width));
  ModelFile model = model_of(std::move(graphs), {{"w", weights({4, width}, 0.5)}, {"v", weights({width, 3}, 0.4)}});
  model.outputs["logits"] = {{"cat", "dog", "fl\xc3\xbcgel"}, "classification"};
  model.preprocessing = R"({"mean": [0.5], "steps": ["resize"]})";
  model.provenance = {{"framework_version", "0.1.0"}, {"created", "2024-05-01T12:00:00Z"}};
  return model;
}

}  // namespace deepseek::infer
