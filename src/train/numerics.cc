#include "train/numerics.h"

#include <charconv>
#include <limits>
#include <map>

#include "graph/cloner.h"
#include "ops/dsl.h"

namespace deepseek::train {

using namespace graph;

namespace {

constexpr std::string_view kNan = "nan/", kInf = "inf/";

struct Counts {
  double nans = 0, infs = 0;
};

std::string text_of(const CountedValue& v, const Counts& counts) {
  const std::string some =
      counts.nans > 0 ? fmt::format("{:.0f} nan", counts.nans) : fmt::format("{:.0f} inf", counts.infs);
  if (v.is_input) return fmt::format("'{}' holds {} of {}", v.what, some, to_string(v.type));
  return fmt::format("{}{} gives {} of {}", v.what, v.scope.empty() ? "" : " in '" + v.scope + "'", some,
                     to_string(v.type));
}

}  // namespace

Result<Counted> with_counts(const Graph& graph) {
  Builder builder(graph.registry());
  Cloner cloner(builder, graph);
  cloner.inputs();
  cloner.nodes();
  for (const Output& output : graph.outputs()) builder.output(output.name, cloner.at(output.value));
  std::vector<CountedValue> values;
  std::map<int32_t, size_t> index;  // by the value's id
  const auto count = [&](Value value, CountedValue described) {
    const Expr v = cloner.at(value);
    if (!v.defined() || !is_float(v.dtype()) || v.type().num_elements() == 0) return;
    const Expr x = ops::cast(v, DType::kF32);
    const auto total = [&](Expr which) { return ops::sum(ops::cast(which, DType::kF32)); };
    builder.output(fmt::format("{}{}", kNan, values.size()), total(builder.op("not_equal", {x, x})));
    builder.output(fmt::format("{}{}", kInf, values.size()),
                   total(ops::greater(ops::abs(x), ops::constant_like(x, std::numeric_limits<float>::max()))));
    index[value.id] = values.size();
    described.type = v.type();
    values.push_back(std::move(described));
  };
  for (const Input& input : graph.inputs()) count(input.value, {.scope = "", .what = input.name, .is_input = true});
  for (const Node& node : graph.nodes()) {
    if (node.op_name() == "constant") continue;
    CountedValue described{.scope = node.scope, .what = node.op_name()};
    for (const Value operand : node.inputs)
      if (const auto at = index.find(operand.id); at != index.end()) described.operands.push_back(at->second);
    for (int32_t i = 0; i < node.num_outputs; ++i) count(node.output(i), described);
  }
  DS_ASSIGN(Graph counted, builder.finish());
  return Counted{std::move(counted), std::move(values)};
}

std::string first_not_finite(const std::vector<CountedValue>& values, const Graph& program,
                             std::span<const Tensor> outputs) {
  std::vector<Counts> counts(values.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    const std::string& name = program.outputs()[i].name;
    for (const std::string_view prefix : {kNan, kInf}) {
      size_t at = values.size();
      if (name.starts_with(prefix)) std::from_chars(name.data() + prefix.size(), name.data() + name.size(), at);
      if (at < values.size()) (prefix == kNan ? counts[at].nans : counts[at].infs) = outputs[i].at(0);
    }
  }
  for (size_t i = 0; i < values.size(); ++i) {
    if (counts[i].nans == 0) continue;
    for (const size_t operand : values[i].operands)
      if (counts[operand].infs > 0)
        return text_of(values[operand], counts[operand]) + ", and then " + text_of(values[i], counts[i]);
    return text_of(values[i], counts[i]);
  }
  for (size_t i = 0; i < values.size(); ++i)
    if (counts[i].infs > 0) return text_of(values[i], counts[i]);
  return "";
}

}  // namespace deepseek::train
