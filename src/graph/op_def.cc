#include "graph/op_def.h"

namespace deepseek::graph {

size_t OpDef::min_inputs() const {
  size_t n = 0;
  for (const OperandSpec& spec : inputs.value) n += !spec.optional;
  return n;
}

Precision OpDef::mixed_precision() const {
  return precision.value_or(traits.elementwise || traits.view ? Precision::kFollow : Precision::kWide);
}

const AttrSpec* OpDef::find_attr(std::string_view attr) const {
  for (const AttrSpec& spec : attrs)
    if (spec.name == attr) return &spec;
  return nullptr;
}

std::string_view to_string(Precision precision) {
  switch (precision) {
    case Precision::kLow: return "low";
    case Precision::kWide: return "wide";
    case Precision::kFollow: return "follow";
    case Precision::kFollowFirst: return "follow_first";
    case Precision::kParts: return "parts";
  }
  return "?";
}

namespace {

Status check_inputs(const OpDef& def, size_t given) {
  const size_t least = def.min_inputs(), most = def.inputs.value.size();
  const bool variadic = !def.inputs.value.empty() && def.inputs.value.back().variadic;
  if (given >= least && (variadic || given <= most)) return {};
  const std::string range = variadic        ? fmt::format("{} or more", least)
                            : least == most ? std::to_string(most)
                                            : fmt::format("{} to {}", least, most);
  return invalid("expected {} inputs, got {}", range, given);
}

Status check_attrs(const OpDef& def, const Attrs& attrs) {
  for (const AttrSpec& spec : def.attrs) {
    const AttrValue* value = attrs.find(spec.name);
    if (value == nullptr) return invalid("needs the attribute '{}' ({})", spec.name, spec.doc);
    if (value->index() != static_cast<size_t>(spec.kind))
      return invalid("attribute '{}': expected a {}, got a {}", spec.name, to_string(spec.kind),
                     to_string(static_cast<AttrKind>(value->index())));
  }
  return {};
}

}  // namespace

TypesOrError infer_types(const OpContext& context) {
  DS_TRY(check_inputs(*context.op, context.num_inputs()));
  DS_TRY(check_attrs(*context.op, *context.attrs));
  for (const auto& [name, value] : *context.attrs)
    if (const auto* list = std::get_if<std::vector<int64_t>>(&value))
      for (int64_t v : *list)
        if (v > kMaxSize || v < -kMaxSize)
          return invalid("attribute '{}': expected integers in [{}, {}], got {}", name, -kMaxSize, kMaxSize,
                         to_string(*list));
  DS_ASSIGN(std::vector<TensorType> types, context.op->infer.value(context));
  for (size_t i = 0; i < types.size(); ++i)
    if (Status s = check_size(types[i]); !s.ok()) return invalid("output {}: {}", i, s.message());
  return types;
}

Status OpRegistry::add(OpDef def) {
  const std::string name = def.name.value;
  if (!def.reference.value.fn() && !def.decompose)
    return internal_error("op '{}' has neither a reference kernel nor a decomposition", name);
  if (!def.gradient.value.fn() && def.gradient.value.differentiable() && !def.decompose)
    return internal_error("op '{}' takes its gradient from a decomposition that it does not have", name);
  if (def.mixed_precision() == Precision::kParts && !def.decompose)
    return internal_error("op '{}': its precision is that of its parts, but it has no decomposition", name);
  if (def.samples.value.empty()) return internal_error("op '{}' has no samples", name);
  for (size_t i = 0; i + 1 < def.inputs.value.size(); ++i)
    if (def.inputs.value[i].variadic) return internal_error("op '{}': only the last input may be variadic", name);
  for (const AttrSpec& spec : def.attrs)
    if (spec.default_value && spec.default_value->index() != static_cast<size_t>(spec.kind))
      return internal_error("op '{}': the default of '{}' is not a {}", name, spec.name, to_string(spec.kind));
  if (find(name) != nullptr) return internal_error("op '{}' is registered twice", name);
  def.registry = this;
  ops_.emplace(name, std::move(def));
  return {};
}

const OpDef* OpRegistry::find(std::string_view name) const {
  for (const OpRegistry* r = this; r != nullptr; r = r->base_)
    if (const auto it = r->ops_.find(name); it != r->ops_.end()) return &it->second;
  return nullptr;
}

std::vector<OpRegistry::Entry> OpRegistry::all() const {
  std::map<std::string_view, const OpDef*> ordered;
  for (const OpRegistry* r = this; r != nullptr; r = r->base_)
    for (const auto& [name, def] : r->ops_) ordered.emplace(name, &def);
  std::vector<Entry> list;
  for (const auto& [name, def] : ordered) list.push_back({def->name.value, *def});
  return list;
}

std::vector<std::string> OpRegistry::names() const {
  std::vector<std::string> names;
  for (const auto& [name, def] : all()) names.push_back(name);
  return names;
}

}  // namespace deepseek::graph
