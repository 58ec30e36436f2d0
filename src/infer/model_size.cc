// Batch sizes: what the traces for two of them tell of the axes, and of any other size.
#include "graph/resize.h"
#include "infer/model_file.h"

namespace deepseek::infer {

using namespace graph;

std::vector<Dims> size_multiples(const ModelFile& model) {
  std::vector<Dims> all;
  int64_t size = 0;  // that the first graph was traced for: the first axis that varies, as resize() takes it
  for (const Port& port : model.signature.inputs) {
    const Graph& graph = model.graphs.front();
    const int32_t index = graph.find_input(input_name(graph, port.name));
    const Dims& traced = graph.type(graph.inputs()[static_cast<size_t>(index)].value).dims;
    Dims multiples(traced.size());
    for (size_t k = 0; k < traced.size(); ++k) {
      if (port.dims[k] >= 0) continue;
      if (size == 0) size = traced[k];
      multiples[k] = traced[k] / size;
    }
    all.push_back(std::move(multiples));
  }
  return all;
}

Result<Graph> graph_for(const ModelFile& model, int64_t size) {
  if (model.graphs.size() == 1) return model.graphs.front();
  if (size < 1 || size > kMaxSize) return invalid("expected a batch size in [1, {}], got {}", kMaxSize, size);
  std::vector<TensorType> types;
  const std::vector<Dims> multiples = size_multiples(model);
  for (size_t i = 0; i < multiples.size(); ++i) {
    const Port& port = model.signature.inputs[i];
    TensorType type{port.dtype, port.dims};
    for (size_t k = 0; k < type.dims.size(); ++k)
      if (multiples[i][k] > 0) type.dims[k] = multiples[i][k] * size;
    if (Status s = check_size(type); !s.ok()) return std::move(s).note(fmt::format("in input '{}'", port.name));
    types.push_back(std::move(type));
  }
  return resize(model.graphs[0], model.graphs[1], types);
}

}  // namespace deepseek::infer
