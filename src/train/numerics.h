// Which value of a training step was the first that is not finite. Test: tests/train/numerics_test.cc
#pragma once

#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace deepseek::train {

// One value of a step: of a float type, an input's or a node's (constants aside).
struct CountedValue {
  std::string scope;  // the layer's path, such as "encoder/3"; empty for inputs
  std::string what;   // the op, or the input's name
  bool is_input = false;
  graph::TensorType type;
  std::vector<size_t> operands;  // other counted values that it is computed of
};

// A graph without its updates, with two more outputs, f32[], for each value i: "nan/<i>" and "inf/<i>", how many of its
// elements are so. Values are in the order of the run, inputs first.
struct Counted {
  graph::Graph graph;
  std::vector<CountedValue> values;
};
Result<Counted> with_counts(const graph::Graph& graph);

// From what a program of such a graph gave, what to tell: the first value that holds a NaN, with the infinities that it was
// computed of, if it was; where there is no NaN the first with infinities. "" where all are finite.
// "exp in 'layer1' gives 2 inf of f32[3], and then sub in 'layer2' gives 2 nan of f32[3]"
std::string first_not_finite(const std::vector<CountedValue>& values, const graph::Graph& program,
                             std::span<const graph::Tensor> outputs);

}  // namespace deepseek::train
