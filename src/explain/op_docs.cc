#include "explain/op_docs.h"

#include <set>

#include "base/strings.h"
#include "graph/cloner.h"
#include "graph/text.h"

namespace deepseek::explain {

using namespace graph;
using runtime::NodeReport;

namespace {

constexpr DType kColumns[] = {DType::kF32, DType::kF64, DType::kBF16, DType::kF16,
                              DType::kI32, DType::kI64, DType::kU8,   DType::kBool};

// The dtype of a sample's numbers, which a column replaces: f32 where an input has it, or the first input's. Of a
// sample without inputs, that of its tensor or of its attribute dtype.
DType numbers_of(const Sample& sample) {
  for (const SampleInput& input : sample.inputs)
    if (input.type.dtype == DType::kF32) return DType::kF32;
  if (!sample.inputs.empty()) return sample.inputs[0].type.dtype;
  for (const auto& [name, value] : sample.attrs) {
    if (const auto* tensor = std::get_if<Tensor>(&value)) return tensor->dtype();
    if (const auto* dtype = std::get_if<DType>(&value)) return *dtype;
  }
  return DType::kF32;
}

Result<Graph> with_dtype(const Graph& graph, DType from, DType to);

Result<Attrs> with_dtype(const Attrs& attrs, DType from, DType to) {
  Attrs out;
  for (const auto& [name, value] : attrs) {
    const auto* tensor = std::get_if<Tensor>(&value);
    const auto* body = std::get_if<GraphRef>(&value);
    if (tensor != nullptr && tensor->dtype() == from) {
      out.set(name, tensor->cast(to));
    } else if (body != nullptr && *body != nullptr) {
      DS_ASSIGN(Graph changed, with_dtype(**body, from, to));
      out.set(name, GraphRef(std::make_shared<const Graph>(std::move(changed))));
    } else {
      out.set(name, value);
    }
  }
  return out;
}

// A body's inputs and constants in another dtype.
Result<Graph> with_dtype(const Graph& graph, DType from, DType to) {
  Builder builder(graph.registry());
  Cloner cloner(builder, graph);
  for (const Input& input : graph.inputs()) {
    const TensorType& type = graph.type(input.value);
    cloner[input.value] = builder.input(input.name, type.dtype == from ? type.with_dtype(to) : type, input.kind);
  }
  for (const Node& node : graph.nodes()) {
    DS_ASSIGN(Attrs attrs, with_dtype(node.attrs, from, to));
    cloner.copy(node, cloner.operands(node), std::move(attrs));
    DS_TRY(builder.status());
  }
  cloner.results();
  return builder.finish();
}

Result<Graph> sample_graph(const OpDef& def, const Sample& sample, DType dtype) {
  const DType from = numbers_of(sample);
  Builder builder(*def.registry);
  std::vector<Expr> inputs;
  for (const SampleInput& input : sample.inputs)
    inputs.push_back(builder.input("x" + std::to_string(inputs.size()),
                                   input.type.dtype == from ? input.type.with_dtype(dtype) : input.type));
  Attrs attrs = sample.attrs;
  if (dtype != from) {
    DS_ASSIGN(attrs, with_dtype(sample.attrs, from, dtype));
    if (inputs.empty() && def.find_attr("dtype") != nullptr) attrs.set("dtype", dtype);
  }
  const std::vector<Expr> outputs = builder.emit(def.name.value, inputs, std::move(attrs));
  for (size_t i = 0; i < outputs.size(); ++i) builder.output("y" + std::to_string(i), outputs[i]);
  return builder.finish();
}

std::string first_line(const std::string& doc) { return doc.substr(0, doc.find('\n')); }

std::string attr_line(const AttrSpec& spec) {
  const std::string fallback = spec.default_value ? "default " + print(*spec.default_value) : "required";
  return fmt::format("{} ({}, {}): {}", spec.name, to_string(spec.kind), fallback, spec.doc);
}

std::string operand_line(const OperandSpec& spec) {
  return fmt::format("{}{}: {}", spec.name,
                     spec.optional   ? " (optional)"
                     : spec.variadic ? " (any number)"
                                     : "",
                     spec.doc);
}

std::string gradient_line(const OpDef& def) {
  const Gradient& gradient = def.gradient.value;
  if (!gradient.differentiable()) return "none: " + gradient.reason();
  return gradient.fn() ? "a rule of its own" : "that of its decomposition";
}

std::string traits_line(const OpDef& def) {
  std::vector<std::string> words;
  if (def.traits.elementwise) words.push_back("element-wise");
  if (def.traits.commutative) words.push_back("commutative");
  if (def.traits.view) words.push_back("view");
  if (def.traits.random) words.push_back("random");
  if (def.decompose) words.push_back("composite");
  return join(words, ", ");
}

// A table's cell must not end at a bar.
std::string escaped(std::string text) {
  for (size_t i = 0; (i = text.find('|', i)) != std::string::npos; i += 2) text.insert(i, "\\");
  return text;
}

std::string section(const OpDef& def) {
  std::string text = fmt::format("\n## {}\n\n{}\n\n", def.name.value, escaped(def.doc.value));
  for (const OperandSpec& spec : def.inputs.value) text += fmt::format("- takes {}\n", escaped(operand_line(spec)));
  for (const OperandSpec& spec : def.outputs.value) text += fmt::format("- gives {}\n", escaped(operand_line(spec)));
  for (const AttrSpec& spec : def.attrs) text += fmt::format("- attribute {}\n", escaped(attr_line(spec)));
  text += fmt::format("- gradient: {}\n", escaped(gradient_line(def)));
  text += fmt::format("- mixed precision: {}\n", to_string(def.mixed_precision()));
  if (const std::string traits = traits_line(def); !traits.empty()) text += "- " + traits + "\n";
  return text;
}

Status unknown_op(const OpRegistry& registry, std::string_view name) {
  const std::string near = nearest(name, registry.names());
  return invalid("there is no op '{}'{}", name,
                 near.empty() ? "; `deepseek ops` lists them" : fmt::format("; did you mean '{}'?", near));
}

// What ran an op's samples: the op as a whole, or the parts it was taken into.
struct Runs {
  std::set<std::string> whole, parts;
};

std::string to_string(const Runs& runs) {
  std::vector<std::string> text(runs.whole.begin(), runs.whole.end());
  if (!runs.parts.empty()) text.push_back("parts: " + join({runs.parts.begin(), runs.parts.end()}, ", "));
  return join(text, "; ");
}

Status add_runs(const OpDef& def, const Sample& sample, DType dtype, const Backend& backend, Runs& runs) {
  for (const SampleInput& input : sample.inputs)
    if (input.type.num_elements() == 0) return {};  // runs on the reference everywhere
  const Result<Graph> graph = sample_graph(def, sample, dtype);
  if (!graph.ok()) return {};  // the op does not take the dtype
  const auto program = backend.compile(*graph, {});
  if (!program.ok() && program.status().code() == ErrorCode::kUnsupported) {
    runs.whole.insert("refused");
    return {};
  }
  DS_TRY(program.status());
  std::set<std::string> whole, parts;
  for (const NodeReport& report : (*program)->report()) {
    const std::string implementation = report.implementation.substr(0, report.implementation.find(" ("));
    (report.op == def.name.value || def.traits.elementwise ? whole : parts).insert(implementation);
  }
  // Where the op still stands, further nodes only prepare its operands.
  if (!whole.empty())
    runs.whole.merge(whole);
  else if (!parts.empty())
    runs.parts.merge(parts);
  else
    runs.whole.insert("none needed");
  return {};
}

}  // namespace

Result<std::string> sample_runs_on(const OpDef& def, const Sample& sample, DType dtype, const Backend& backend) {
  Runs runs;
  DS_TRY(add_runs(def, sample, dtype, backend, runs));
  return to_string(runs);
}

std::string op_list(const OpRegistry& registry) {
  std::string text;
  size_t width = 0;
  for (const auto& [name, def] : registry.all()) width = std::max(width, name.size());
  for (const auto& [name, def] : registry.all())
    text += fmt::format("{:<{}}  {}\n", name, width, first_line(def.doc.value));
  return text;
}

Result<std::string> op_page(const OpRegistry& registry, std::string_view name, const Backend& backend) {
  const OpDef* def = registry.find(name);
  if (def == nullptr) return unknown_op(registry, name);
  std::string text = fmt::format("{}\n  {}\n", name, def->doc.value);
  for (const OperandSpec& spec : def->inputs.value) text += fmt::format("\n  takes {}", operand_line(spec));
  for (const OperandSpec& spec : def->outputs.value) text += fmt::format("\n  gives {}", operand_line(spec));
  for (const AttrSpec& spec : def->attrs) text += fmt::format("\n  attribute {}", attr_line(spec));
  text += fmt::format("\n  gradient: {}", gradient_line(*def));
  text += fmt::format("\n  mixed precision: {}", to_string(def->mixed_precision()));
  if (const std::string traits = traits_line(*def); !traits.empty()) text += "\n  " + traits;
  text += fmt::format("\n\nsamples on {}\n", backend.name());
  for (const Sample& sample : def->samples.value) {
    std::vector<std::string> types;
    for (const SampleInput& input : sample.inputs) types.push_back(to_string(input.type));
    DS_ASSIGN(const std::string runs, sample_runs_on(*def, sample, numbers_of(sample), backend));
    text += fmt::format("  {:<26} {:<44} {}\n", sample.name, join(types, " "), runs);
  }
  return text;
}

Result<std::string> op_table(const OpRegistry& registry, const Backend& backend,
                             const std::vector<std::string>& names) {
  std::string head = "| op | samples |", bar = "|---|---|", rows, sections;
  for (DType dtype : kColumns) {
    head += fmt::format(" {} |", to_string(dtype));
    bar += "---|";
  }
  for (const std::string& name : names.empty() ? registry.names() : names) {
    const OpDef* def = registry.find(name);
    if (def == nullptr) return unknown_op(registry, name);
    rows += fmt::format("| [{0}](#{0}) | {1} |", name, def->samples.value.size());
    for (DType dtype : kColumns) {
      Runs runs;
      for (const Sample& sample : def->samples.value) DS_TRY(add_runs(*def, sample, dtype, backend, runs));
      const std::string cell = to_string(runs);
      rows += " " + (cell.empty() ? "–" : cell) + " |";
    }
    rows += "\n";
    sections += section(*def);
  }
  return fmt::format(
      "# Ops\n\nWritten by `deepseek ops --table` from the op records and the programs that the backend `{0}` makes of "
      "their samples,\nwith the samples' numbers in each element type. A cell names what runs them on this machine; "
      "several where samples differ.\n`parts:` means that the op is taken apart first, and names what runs the parts. "
      "`upcast` is by way of f32; `reference` is correct\nbut slow; `none needed` is a new view of the same bytes; – "
      "means that the op does not take the type.\n\n{1}\n{2}\n{3}{4}",
      backend.name(), head, bar, rows, sections);
}

}  // namespace deepseek::explain
