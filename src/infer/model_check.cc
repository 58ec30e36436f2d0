// What the parts of a model owe each other.
#include <algorithm>
#include <functional>
#include <optional>

#include "base/json.h"
#include "base/strings.h"
#include "graph/resize.h"
#include "infer/model_file.h"

namespace deepseek::infer {

using namespace graph;

namespace {

constexpr size_t kMostJsonDepth = 64;
constexpr size_t kMostNamed = 5;  // of faults of one kind, in one message
constexpr std::string_view kApart = "input/";

std::vector<const Input*> data_inputs(const Graph& graph) {
  std::vector<const Input*> inputs;
  for (const Input& input : graph.inputs())
    if (input.kind == InputKind::kData) inputs.push_back(&input);
  return inputs;
}

// The port's name of what a graph calls its data input: the other direction of input_name().
std::string port_name(const Graph& graph, const std::string& input) {
  if (!input.starts_with(kApart)) return input;
  const std::string own = input.substr(kApart.size());
  return input_name(graph, own) == input ? own : input;
}

Result<Port> port(std::string_view kind, const std::string& name, const TensorType& a, const TensorType& b) {
  if (name.empty()) return invalid("an {} has no name", kind);
  if (a.dtype != b.dtype || a.rank() != b.rank())
    return invalid("{} '{}' is {} in one graph and {} in the other; traces for two sizes differ in sizes alone", kind,
                   name, to_string(a), to_string(b));
  Port port{name, a.dtype, a.dims};
  for (size_t i = 0; i < a.dims.size(); ++i)
    if (a.dims[i] != b.dims[i]) port.dims[i] = -1;
  return port;
}

Status check_nodes(const Graph& graph) {
  for (int32_t v = 0; v < graph.num_values(); ++v)
    if (const TensorType& type = graph.type({v}); type.channel_block != 1)
      return make_error(ErrorCode::kUnsupported, "a value is {}; models hold row-major values only", to_string(type));
  for (const Node& node : graph.nodes()) {
    if (node.op->traits.random)
      return make_error(ErrorCode::kUnsupported,
                        "[{}] node '{}' draws random numbers, as in training; trace the model after eval()",
                        node.op_name(), node.scope);
    for (const auto& [name, value] : node.attrs)
      if (const auto* body = std::get_if<GraphRef>(&value); body != nullptr && *body != nullptr)
        DS_TRY(check_nodes(**body));
  }
  return {};
}

Status check_weights(const ModelFile& model) {
  std::vector<std::string> faults;
  std::map<std::string, bool> used;
  for (const auto& [name, weight] : model.weights) {
    used.emplace(name, false);
    if (!weight.defined()) faults.push_back(fmt::format("weight '{}' has no data", name));
    if (name.starts_with("deepseek."))
      faults.push_back(fmt::format("weight '{}': names that begin with 'deepseek.' are the file's own", name));
  }
  for (const Graph& graph : model.graphs)
    for (const Input& input : graph.inputs()) {
      if (input.kind != InputKind::kState) continue;
      const TensorType& type = graph.type(input.value);
      const auto weight = model.weights.find(input.name);
      if (weight == model.weights.end()) {
        faults.push_back(fmt::format("weight '{}', {}, is missing", input.name, to_string(type)));
        continue;
      }
      used[input.name] = true;
      if (weight->second.defined() && weight->second.type() != type)
        faults.push_back(fmt::format("weight '{}': the graph expects {}, got {}", input.name, to_string(type),
                                     to_string(weight->second.type())));
    }
  for (const auto& [name, is] : used)
    if (!is) faults.push_back(fmt::format("weight '{}' is none that the graph has", name));
  if (faults.empty()) return {};
  const size_t more = faults.size() > kMostNamed ? faults.size() - kMostNamed : 0;
  faults.resize(faults.size() - more);
  return invalid("{}{}", join(faults, "; "), more > 0 ? fmt::format("; and {} more", more) : "");
}

Status check_signature(const Signature& expected, const Signature& got) {
  const auto compare = [](std::string_view kind, const std::vector<Port>& want,
                          const std::vector<Port>& have) -> Status {
    if (want.size() != have.size())
      return invalid("the graph has {} {}s, the signature {}", want.size(), kind, have.size());
    for (size_t i = 0; i < want.size(); ++i)
      if (want[i] != have[i])
        return invalid("{} {}: the graph has '{}', {}, the signature '{}', {}", kind, i, want[i].name,
                       to_string(want[i]), have[i].name, to_string(have[i]));
    return {};
  };
  DS_TRY(compare("input", expected.inputs, got.inputs));
  return compare("output", expected.outputs, got.outputs);
}

// Whether the two traces tell of other sizes. Of the smaller one: nothing is larger then than what is there already.
Status check_traces(const std::vector<Graph>& graphs) {
  if (graphs.size() < 2) return {};
  std::vector<TensorType> smaller;
  const std::vector<const Input*> a = data_inputs(graphs[0]), b = data_inputs(graphs[1]);
  for (size_t i = 0; i < a.size(); ++i) {
    TensorType type = graphs[0].type(a[i]->value);
    const Dims& other = graphs[1].type(b[i]->value).dims;
    for (size_t k = 0; k < other.size(); ++k) type.dims[k] = std::min(type.dims[k], other[k]);
    smaller.push_back(std::move(type));
  }
  const Result<Graph> resized = resize(graphs[0], graphs[1], smaller);
  if (resized.ok()) return {};
  return invalid("the graphs for two sizes do not tell of others: {}", resized.status().to_string());
}

Status check_text(const ModelFile& model) {
  const auto utf8 = [](std::string_view what, std::string_view text) -> Status {
    const size_t bad = first_invalid_utf8(text);
    if (bad == text.size()) return {};
    return invalid("{} is not UTF-8 at byte {}", what, bad);
  };
  for (const auto* ports : {&model.signature.inputs, &model.signature.outputs})
    for (const Port& port : *ports) DS_TRY(utf8("the name of an input or output", port.name));
  for (const auto& named : model.weights) DS_TRY(utf8("the name of a weight", named.first));
  for (const auto& described : model.outputs) {
    const std::string& output = described.first;
    const OutputInfo& info = described.second;
    const auto has = [&](const Port& p) { return p.name == output; };
    if (std::none_of(model.signature.outputs.begin(), model.signature.outputs.end(), has))
      return invalid("there is no output '{}' that has class names or a task", output);
    DS_TRY(utf8(fmt::format("output '{}': the task", output), info.task));
    for (const std::string& name : info.class_names)
      DS_TRY(utf8(fmt::format("output '{}': a class name", output), name));
  }
  for (const auto& [key, value] : model.provenance) {
    DS_TRY(utf8("a key of the provenance", key));
    DS_TRY(utf8(fmt::format("the provenance's '{}'", key), value));
  }
  if (model.preprocessing.empty()) return {};
  if (const Status s = check_json(model.preprocessing, kMostJsonDepth); !s.ok())
    return invalid("the preprocessing {}", s.message());
  return {};
}

}  // namespace

std::string to_string(const Port& port) {
  std::vector<std::string> sizes;
  for (const int64_t d : port.dims) sizes.push_back(d < 0 ? "?" : std::to_string(d));
  return fmt::format("{}[{}]", to_string(port.dtype), join(sizes, ","));
}

std::string input_name(const Graph& graph, const std::string& port) {
  const int32_t same = graph.find_input(port);
  const bool weight = same >= 0 && graph.inputs()[static_cast<size_t>(same)].kind == InputKind::kState;
  return weight ? std::string(kApart) + port : port;
}

Result<Signature> signature_of(std::span<const Graph> graphs) {
  if (graphs.empty() || graphs.size() > 2)
    return invalid("expected one graph, or those for two sizes, got {}", graphs.size());
  const Graph &a = graphs.front(), &b = graphs.back();
  if (!a.defined() || !b.defined()) return invalid("a graph is not defined");
  const std::vector<const Input*> of_a = data_inputs(a), of_b = data_inputs(b);
  if (of_a.size() != of_b.size() || a.outputs().size() != b.outputs().size())
    return invalid("the graphs for two sizes have {} and {} inputs, {} and {} outputs", of_a.size(), of_b.size(),
                   a.outputs().size(), b.outputs().size());
  Signature signature;
  bool varies = false;
  for (size_t i = 0; i < of_a.size(); ++i) {
    if (of_a[i]->name != of_b[i]->name)
      return invalid("input {} is '{}' in one graph and '{}' in the other", i, of_a[i]->name, of_b[i]->name);
    DS_ASSIGN(Port made, port("input", port_name(a, of_a[i]->name), a.type(of_a[i]->value), b.type(of_b[i]->value)));
    varies = varies || std::find(made.dims.begin(), made.dims.end(), -1) != made.dims.end();
    signature.inputs.push_back(std::move(made));
  }
  for (size_t i = 0; i < a.outputs().size(); ++i) {
    const Output &x = a.outputs()[i], &y = b.outputs()[i];
    if (x.name != y.name) return invalid("output {} is '{}' in one graph and '{}' in the other", i, x.name, y.name);
    DS_ASSIGN(Port made, port("output", x.name, a.type(x.value), b.type(y.value)));
    signature.outputs.push_back(std::move(made));
  }
  if (graphs.size() == 2 && !varies) return invalid("the graphs for two sizes have inputs of the same sizes");
  return signature;
}

Status check_model(const ModelFile& model) {
  DS_ASSIGN(const Signature signature, signature_of(model.graphs));
  for (const Graph& graph : model.graphs) {
    if (!graph.updates().empty())
      return make_error(ErrorCode::kUnsupported,
                        "the graph changes its state '{}', as in training; trace the model after eval()",
                        graph.inputs()[static_cast<size_t>(graph.updates()[0].input)].name);
    if (graph.outputs().empty()) return invalid("the graph has no outputs");
    DS_TRY(check_nodes(graph));
  }
  DS_TRY(check_signature(signature, model.signature));
  DS_TRY(check_weights(model));
  DS_TRY(check_text(model));
  return check_traces(model.graphs);
}

}  // namespace deepseek::infer
