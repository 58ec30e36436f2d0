// A model as one file: safetensors whose tensors are the weights, so that any reader of safetensors sees them, and
// whose metadata, under keys "deepseek.*", hold the graph and what else it takes to use the model. Neither the code
// that built the model nor its training data are needed; nothing is executed while reading, and no byte is trusted.
// Invariant: what load_model() gives, save_model() writes again, and a session runs.
// Test: tests/infer/model_file_test.cc, tests/fuzz/model_file_fuzz.cc
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "graph/graph.h"
#include "graph/tensor.h"

namespace deepseek::infer {

// The format that this build writes, and the newest that it reads.
inline constexpr int64_t kFormatVersion = 1;

// One input or output. -1 in dims: an axis that varies with the size of the batch.
struct Port {
  std::string name;
  DType dtype = DType::kF32;
  graph::Dims dims;
  bool operator==(const Port&) const = default;
};
std::string to_string(const Port& port);  // "f32[?,3,28,28]"

struct Signature {
  std::vector<Port> inputs, outputs;
  bool operator==(const Signature&) const = default;
};

// What is known of an output besides its type.
struct OutputInfo {
  std::vector<std::string> class_names;  // by index; empty: none are known
  std::string task;                      // "classification", "regression", ..., or empty
  bool operator==(const OutputInfo&) const = default;
};

struct ModelFile {
  int64_t format = kFormatVersion;  // of the file that it was read from; what is saved is always kFormatVersion
  // One graph: inputs have exactly its sizes. Two: traces of one model for two batch sizes, which tell the graph for any
  // other (graph/resize.h). Data inputs and outputs are the signature's, in its order and by its names (input_name());
  // state inputs are the weights. No updates, and nothing that draws random numbers: an evaluating model.
  std::vector<graph::Graph> graphs;
  std::map<std::string, graph::Tensor> weights;
  Signature signature;
  std::map<std::string, OutputInfo> outputs;  // by name, of those that there is something to say of
  std::string preprocessing;                  // JSON: how raw data become inputs, for whoever does that; empty: none
  std::map<std::string, std::string> provenance;  // "framework_version", "created", "config", "data_fingerprint", ...
};

// What a port is called in a graph: by its own name, or "input/<name>" where a weight of the graph has that name.
std::string input_name(const graph::Graph& graph, const std::string& port);

// The signature that the graphs (one, or two traces) have. Errors: traces that do not tell of other sizes.
Result<Signature> signature_of(std::span<const graph::Graph> graphs);

// Of models that check_model() has passed. How many times the batch size each axis of each input has; 0: it is fixed.
std::vector<graph::Dims> size_multiples(const ModelFile& model);
// The graph for a batch size; of a model with one graph that one.
Result<graph::Graph> graph_for(const ModelFile& model, int64_t size);

// Whether the parts agree: what save_model() and load_model() hold a model to. Errors: kInvalidArgument, kUnsupported.
Status check_model(const ModelFile& model);

// Writes atomically: at any moment `path` holds its old content or the whole new one. Large constants of graphs become
// tensors "deepseek.constant.<n>". Errors: what check_model() says; kIo.
Status save_model(const std::string& path, const ModelFile& model);

// Errors: kNotFound, kIo; kInvalidArgument for what is no ordinary file; kUnsupported for files of weights alone, of
// other formats and of newer versions; kDataCorrupt for the rest. They name the file, what is wrong, and what to do.
Result<ModelFile> load_model(const std::string& path);
// The same from memory; `where` names the source in messages.
Result<ModelFile> parse_model(std::span<const std::byte> bytes, std::string_view where);

}  // namespace deepseek::infer
