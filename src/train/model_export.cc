#include "train/model_export.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "base/progress.h"
#include "base/strings.h"
#include "base/version.h"
#include "graph/cloner.h"
#include "train/forward.h"
#include "train/resume.h"

namespace deepseek::train {

using namespace graph;

namespace {

// Batches of two sizes tell the graph for any other.
constexpr std::array<int64_t, 2> kSizes = {3, 5};

// With the users' names of inputs and outputs.
Result<Graph> renamed(const Graph& graph) {
  Builder builder(graph.registry());
  Cloner cloner(builder, graph);
  for (const Input& input : graph.inputs()) {
    const std::string plain = nn::data_name(input.name);
    const std::string name = input.kind == InputKind::kData ? infer::input_name(graph, plain) : input.name;
    cloner[input.value] = builder.input(name, graph.type(input.value), input.kind);
  }
  cloner.nodes();
  for (const auto& [name, index] : outputs_after(graph, kOutputs))
    builder.output(name, cloner.at(graph.outputs()[index].value));
  for (const Update& update : graph.updates())
    return make_error(ErrorCode::kUnsupported,
                      "the model changes its state '{}' when it evaluates; such a model can't be saved whole",
                      graph.inputs()[static_cast<size_t>(update.input)].name);
  return builder.finish();
}

Result<Graph> trace(nn::Module& model, const std::vector<data::Field>& fields, int64_t size) {
  data::BatchType type;
  for (const data::Field& f : fields)
    if (f.role == data::Role::kInput) type.push_back({f.name, f.batch_type(size), f.role});
  DS_ASSIGN(const Graph graph, evaluation_graph(model, type, nullptr));
  return renamed(graph);
}

// Those that the graph reads.
Result<std::map<std::string, Tensor>> weights_of(const Graph& graph, const nn::Module& model,
                                                 const std::map<std::string, Tensor>& given) {
  std::map<std::string, Tensor> all = given, out;
  if (given.empty())
    for (const nn::State& s : model.named_state()) all.emplace(s.name, s.value);
  for (const Input& input : graph.inputs()) {
    if (input.kind != InputKind::kState) continue;
    const auto value = all.find(input.name);
    if (value == all.end())
      return make_error(
          ErrorCode::kUnsupported,
          "the model uses '{}' when it evaluates, which is none of its tensors; a model that draws random "
          "numbers can't be saved whole",
          input.name);
    out.emplace(input.name, value->second);
  }
  return out;
}

const char* text_of(Task task) { return task == Task::kRegression ? "regression" : "classification"; }

}  // namespace

Result<DataSummary> summarise(const data::Dataset& dataset) {
  DS_ASSIGN(std::string print, fingerprint(&dataset));
  return DataSummary{dataset.fields(), dataset.input_spec(), std::move(print)};
}

Result<infer::ModelFile> export_model(nn::Module& model, const DataSummary& data,
                                      const std::map<std::string, Tensor>& weights,
                                      const std::map<std::string, Task>& tasks,
                                      std::map<std::string, std::string> provenance) {
  infer::ModelFile file;
  const auto take = [&](std::span<const int64_t> sizes) -> Status {
    file.graphs.clear();
    for (const int64_t size : sizes) {
      DS_ASSIGN(Graph graph, trace(model, data.fields, size));
      file.graphs.push_back(std::move(graph));
    }
    DS_ASSIGN(file.weights, weights_of(file.graphs[0], model, weights));
    DS_ASSIGN(file.signature, infer::signature_of(file.graphs));
    return infer::check_model(file);
  };
  const std::array<int64_t, 1> one = {1};
  if (const Status any_size = take(kSizes); !any_size.ok()) DS_TRY(take(one));  // the code looks at the batch's size
  std::vector<std::string> outputs, targets;
  for (const infer::Port& port : file.signature.outputs) outputs.push_back(port.name);
  for (const data::Field& f : data.fields)
    if (f.role == data::Role::kTarget) targets.push_back(f.name);
  for (const data::Field& f : data.fields) {
    if (f.role != data::Role::kTarget) continue;
    const bool same = std::find(outputs.begin(), outputs.end(), f.name) != outputs.end();
    if (!same && (outputs.size() != 1 || targets.size() != 1)) continue;
    const auto task = tasks.find(f.name);
    infer::OutputInfo& info = file.outputs[same ? f.name : outputs[0]];
    info.class_names = f.class_names;
    info.task = task != tasks.end() ? text_of(task->second) : f.is_classes() ? "classification" : "regression";
  }
  file.preprocessing = data.input_spec;
  const double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  file.provenance = std::move(provenance);
  file.provenance.emplace("framework_version", version());
  file.provenance.emplace("created", moment_text(now));
  file.provenance.emplace("data_fingerprint", data.fingerprint);
  return file;
}

}  // namespace deepseek::train
