#include "graph/builder.h"

#include <algorithm>

namespace deepseek::graph {

TensorType Expr::type() const { return defined() ? builder_->type(value_) : TensorType(); }

int64_t Expr::dim(int64_t axis) const {
  const Dims d = dims();
  if (axis < 0) axis += static_cast<int64_t>(d.size());
  return axis >= 0 && axis < static_cast<int64_t>(d.size()) ? d[axis] : 1;
}

Value Builder::new_value(TensorType type, int32_t producer) {
  data_.types.push_back(std::move(type));
  data_.producer.push_back(producer);
  return {static_cast<int32_t>(data_.types.size()) - 1};
}

void Builder::fail(Status status) {
  if (status_.ok()) status_ = std::move(status);
}

Status Builder::take_status() { return std::exchange(status_, Status()); }

Expr Builder::input(std::string name, TensorType type, InputKind kind) {
  if (Status s = check_size(type); !s.ok()) fail(invalid("input '{}': {}", name, s.message()));
  const Value value = new_value(std::move(type), -1);
  data_.inputs.push_back({std::move(name), kind, value});
  return {this, value};
}

namespace {

// Fills defaults and checks kinds; an integer given for a float attribute is taken as one.
Result<Attrs> complete_attrs(const OpDef& def, Attrs given) {
  Attrs attrs;
  for (const auto& [name, value] : given)
    if (def.find_attr(name) == nullptr) {
      std::string known;
      for (const AttrSpec& spec : def.attrs) known += (known.empty() ? "" : ", ") + spec.name;
      return invalid("has no attribute '{}'; it has: {}", name, known.empty() ? "none" : known);
    }
  for (const AttrSpec& spec : def.attrs) {
    const AttrValue* value = given.find(spec.name);
    if (value == nullptr) {
      if (!spec.default_value) return invalid("needs the attribute '{}' ({})", spec.name, spec.doc);
      attrs.set(spec.name, *spec.default_value);
    } else if (value->index() == static_cast<size_t>(spec.kind)) {
      attrs.set(spec.name, *value);
    } else if (spec.kind == AttrKind::kFloat && std::holds_alternative<int64_t>(*value)) {
      attrs.set(spec.name, static_cast<double>(std::get<int64_t>(*value)));
    } else if (spec.kind == AttrKind::kFloats && std::holds_alternative<std::vector<int64_t>>(*value)) {
      const auto& ints = std::get<std::vector<int64_t>>(*value);
      attrs.set(spec.name, std::vector<double>(ints.begin(), ints.end()));
    } else {
      return invalid("attribute '{}': expected a {}, got a {}", spec.name, to_string(spec.kind),
                     to_string(static_cast<AttrKind>(value->index())));
    }
  }
  return attrs;
}

}  // namespace

std::vector<Expr> Builder::emit(std::string_view op, std::vector<Expr> inputs, Attrs given) {
  const OpDef* def = registry_->find(op);
  const auto failed = [&](Status status) {
    const std::string where = scope_.empty() ? fmt::format("[{}]", op) : fmt::format("[{}] node '{}':", op, scope_);
    Status full(status.code(), where + " " + status.message());
    for (const std::string& note : status.notes()) full = std::move(full).note(note);
    fail(std::move(full));
    return std::vector<Expr>(def ? def->outputs.value.size() : 1, Expr(this, Value()));
  };
  if (def == nullptr) return failed(Status(ErrorCode::kNotFound, "is no registered op"));
  if (!status_.ok()) return std::vector<Expr>(def->outputs.value.size(), Expr(this, Value()));
  Node node;
  node.op = def;
  OpContext context{def, {}, &node.attrs};
  for (const Expr& e : inputs) {
    if (!e.defined()) return failed(internal_error("input {} is undefined", node.inputs.size()));
    if (&e.builder() != this)
      return failed(
          invalid("input {} belongs to another graph; all inputs of an op come from one graph", node.inputs.size()));
    node.inputs.push_back(e.value());
    context.inputs.push_back(e.type());
  }
  Result<Attrs> attrs = complete_attrs(*def, std::move(given));
  if (!attrs.ok()) return failed(std::move(attrs).status());
  node.attrs = std::move(*attrs);
  Result<std::vector<TensorType>> types = infer_types(context);
  if (!types.ok()) return failed(std::move(types).status());
  node.scope = scope_;
  node.num_outputs = static_cast<int32_t>(types->size());
  node.first_output = {static_cast<int32_t>(data_.types.size())};
  std::vector<Expr> outputs;
  for (TensorType& type : *types)
    outputs.emplace_back(this, new_value(std::move(type), static_cast<int32_t>(data_.nodes.size())));
  data_.nodes.push_back(std::move(node));
  return outputs;
}

Expr Builder::op(std::string_view op, std::vector<Expr> inputs, Attrs attrs) {
  return emit(op, std::move(inputs), std::move(attrs))[0];
}

Expr Builder::constant(Tensor value) { return op("constant", {}, {{"value", std::move(value)}}); }

void Builder::output(std::string name, Expr value) {
  if (!value.defined()) return fail(internal_error("output '{}' is undefined", name));
  data_.outputs.push_back({std::move(name), value.value()});
}

void Builder::update(Expr state, Expr value) {
  if (!state.defined() || !value.defined()) return fail(internal_error("an update's state or value is undefined"));
  for (size_t i = 0; i < data_.inputs.size(); ++i)
    if (data_.inputs[i].value == state.value()) {
      data_.updates.push_back({static_cast<int32_t>(i), value.value()});
      return;
    }
  fail(internal_error("update of %{}, which is not an input", state.value().id));
}

std::vector<Expr> Builder::inline_values(const Graph& graph, std::span<const Expr> inputs,
                                         const std::map<int32_t, Expr>& given) {
  std::vector<Expr> map(static_cast<size_t>(graph.num_values()));
  for (size_t i = 0; i < graph.inputs().size(); ++i) map[graph.inputs()[i].value.id] = inputs[i];
  const std::string outer = scope_;
  for (const Node& node : graph.nodes()) {
    std::vector<Expr> args;
    for (Value v : node.inputs) args.push_back(map[v.id]);
    if (!node.scope.empty()) scope_ = outer.empty() ? node.scope : outer + "/" + node.scope;
    std::vector<Expr> results = emit(node.op_name(), std::move(args), node.attrs);
    scope_ = outer;
    for (size_t i = 0; i < results.size(); ++i) {
      const int32_t id = node.output(static_cast<int32_t>(i)).id;
      const auto other = given.find(id);
      map[id] = other != given.end() ? other->second : results[i];
    }
  }
  return map;
}

std::vector<Expr> Builder::inline_graph(const Graph& graph, std::span<const Expr> inputs) {
  const std::vector<Expr> map = inline_values(graph, inputs);
  std::vector<Expr> outputs;
  for (const Output& output : graph.outputs()) outputs.push_back(map[output.value.id]);
  return outputs;
}

Result<Graph> Builder::finish() {
  DS_TRY(status_);
  // Values are renumbered so that dead nodes leave no holes and the text form is stable.
  std::vector<bool> live(data_.types.size());
  for (const Output& o : data_.outputs) live[o.value.id] = true;
  for (const Update& u : data_.updates) live[u.value.id] = true;
  std::vector<bool> keep(data_.nodes.size());
  for (size_t i = data_.nodes.size(); i-- > 0;) {
    const Node& node = data_.nodes[i];
    for (int32_t j = 0; j < node.num_outputs; ++j) keep[i] = keep[i] || live[node.output(j).id];
    if (keep[i])
      for (Value v : node.inputs) live[v.id] = true;
  }
  Graph::Data out;
  std::vector<Value> map(data_.types.size());
  const auto add = [&](Value old, int32_t producer) {
    out.types.push_back(data_.types[old.id]);
    out.producer.push_back(producer);
    return map[old.id] = {static_cast<int32_t>(out.types.size()) - 1};
  };
  for (const Input& input : data_.inputs) out.inputs.push_back({input.name, input.kind, add(input.value, -1)});
  for (size_t i = 0; i < data_.nodes.size(); ++i) {
    if (!keep[i]) continue;
    Node node = data_.nodes[i];
    for (Value& v : node.inputs) v = map[v.id];
    const Value first = node.first_output;
    node.first_output = {static_cast<int32_t>(out.types.size())};
    for (int32_t j = 0; j < node.num_outputs; ++j) add({first.id + j}, static_cast<int32_t>(out.nodes.size()));
    out.nodes.push_back(std::move(node));
  }
  for (const Output& o : data_.outputs) out.outputs.push_back({o.name, map[o.value.id]});
  for (const Update& u : data_.updates) out.updates.push_back({u.input, map[u.value.id]});
  out.observed = data_.observed;
  out.registry = registry_;
  Graph graph(std::move(out));
  DS_TRY(verify(graph));
  return graph;
}

}  // namespace deepseek::graph
