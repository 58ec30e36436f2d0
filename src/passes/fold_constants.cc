#include "passes/fold_constants.h"

#include <algorithm>
#include <cmath>

#include "ops/interpreter.h"
#include "passes/rewrite.h"

namespace deepseek::passes {

using namespace graph;

namespace {

constexpr int64_t kMostElements = 65536;

// References compute in double, which holds integers up to 2^53.
bool exact(DType dtype, const std::vector<double>& values) {
  constexpr double kMost = 9007199254740992.0;
  return dtype != DType::kI64 ||
         std::all_of(values.begin(), values.end(), [](double v) { return std::fabs(v) < kMost; });
}

// The constant that e is, if it is one.
const Tensor* constant_of(const std::vector<const Tensor*>& constants, const Expr& e) {
  const size_t id = static_cast<size_t>(e.value().id);
  return id < constants.size() ? constants[id] : nullptr;
}

}  // namespace

Result<Graph> fold_constants(const Graph& graph, const PassContext&) {
  std::vector<const Tensor*> constants;  // by value id of the new graph; the tensors are kept by `kept`
  std::vector<std::unique_ptr<Tensor>> kept;
  Status failed;
  bool found = false;
  const auto remember = [&](const Expr& e, const Tensor& value) {
    const size_t id = static_cast<size_t>(e.value().id);
    if (constants.size() <= id) constants.resize(id + 1);
    kept.push_back(std::make_unique<Tensor>(value));
    constants[id] = kept.back().get();
  };
  const auto replace = [&](Builder& builder, const Graph& from, const Node& node,
                           const std::vector<Expr>& inputs) -> std::optional<std::vector<Expr>> {
    if (!failed.ok()) return std::nullopt;
    const auto emit = [&] { return builder.emit(node.op_name(), inputs, node.attrs); };
    if (node.op_name() == "constant") {
      std::vector<Expr> results = emit();
      remember(results[0], node.attrs.get<Tensor>("value"));
      return results;
    }
    int64_t read = 0, written = 0;
    for (const Expr& e : inputs) {
      const Tensor* value = constant_of(constants, e);
      if (value == nullptr) return emit();
      read += value->num_elements();
    }
    std::vector<TensorType> types;
    for (int32_t i = 0; i < node.num_outputs; ++i) {
      types.push_back(from.type(node.output(i)));
      written += types.back().num_elements();
    }
    // What has no inputs makes large things of nothing, and a broadcast costs nothing where it is.
    if (inputs.empty() || written > read || written > kMostElements || node.op->traits.random) return emit();
    std::vector<RefTensor> arguments;
    for (const Expr& e : inputs) {
      const Tensor& value = *constant_of(constants, e);
      RefTensor argument(value.type());
      for (int64_t i = 0; i < value.num_elements(); ++i) argument.data[static_cast<size_t>(i)] = value.at(i);
      if (!exact(argument.dtype, argument.data)) return emit();
      arguments.push_back(std::move(argument));
    }
    Result<std::vector<RefTensor>> values = ops::evaluate_node(from.context(node), std::move(arguments), types, true);
    if (!values.ok()) {
      failed = std::move(values).status().note("while computing constants");
      return std::nullopt;
    }
    for (size_t i = 0; i < types.size(); ++i)
      if (!exact(types[i].dtype, (*values)[i].data)) return emit();
    found = true;
    std::vector<Expr> results;
    for (size_t i = 0; i < types.size(); ++i) {
      const Tensor value = Tensor::from<double>(types[i].dtype, types[i].dims, (*values)[i].data);
      results.push_back(builder.constant(value));
      remember(results.back(), value);
    }
    return results;
  };
  DS_ASSIGN(Graph result, rewrite(graph, replace));
  DS_TRY(failed);
  return found ? result : graph;
}

}  // namespace deepseek::passes
