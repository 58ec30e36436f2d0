#include "graph/pattern.h"

#include <algorithm>

namespace deepseek::graph {

Pattern Pattern::as(std::string name) const {
  Pattern p = *this;
  p.capture_ = std::move(name);
  return p;
}

Pattern Pattern::attr(std::string name, AttrValue value) const {
  return attr(std::move(name), [value = std::move(value)](const AttrValue& v) { return same_value(v, value); });
}

Pattern Pattern::attr(std::string name, std::function<bool(const AttrValue&)> condition) const {
  Pattern p = *this;
  p.attrs_.emplace_back(std::move(name), std::move(condition));
  return p;
}

Pattern Pattern::uses(int32_t count) const {
  Pattern p = *this;
  p.uses_ = count;
  return p;
}

Pattern Pattern::output(int32_t index) const {
  Pattern p = *this;
  p.output_ = index;
  return p;
}

Pattern Pattern::where(Condition condition) const {
  Pattern p = *this;
  p.conditions_.push_back(std::move(condition));
  return p;
}

Pattern any(std::string name) {
  Pattern p;
  p.capture_ = std::move(name);
  return p;
}

Pattern op(std::string name) {
  Pattern p;
  p.op_ = std::move(name);
  return p;
}

Pattern op(std::string name, std::vector<Pattern> operands) {
  Pattern p = op(std::move(name));
  p.operands_ = std::move(operands);
  return p;
}

Pattern constant(double value) {
  return op("constant", {}).attr("value", [value](const AttrValue& v) {
    const Tensor& t = std::get<Tensor>(v);
    for (int64_t i = 0; i < t.num_elements(); ++i)
      if (t.at(i) != value) return false;
    return t.num_elements() > 0;
  });
}

Pattern either(std::vector<Pattern> alternatives) {
  Pattern p;
  p.alternatives_ = std::move(alternatives);
  return p;
}

Value Match::at(std::string_view name) const {
  for (const auto& [captured, value] : captures_)
    if (captured == name) return value;
  return {};
}

std::optional<Match> Matcher::match(const Pattern& pattern, Value value) const {
  Match match;
  if (!visit(pattern, value, match, [] { return true; })) return std::nullopt;
  return match;
}

// `next` matches the rest of the whole pattern; where that fails, another order or alternative is tried here.
bool Matcher::visit(const Pattern& p, Value v, Match& match, const Next& next) const {
  if (p.uses_ && uses_[v.id] != *p.uses_) return false;
  const Node* node = graph_.producer(v);
  if (!p.op_.empty()) {
    if (node == nullptr || node->op_name() != p.op_ || node->output(p.output_) != v) return false;
    if (p.operands_ && p.operands_->size() != node->inputs.size()) return false;
    for (const auto& [name, condition] : p.attrs_)
      if (const AttrValue* value = node->attrs.find(name); value == nullptr || !condition(*value)) return false;
  }
  for (const Pattern::Condition& condition : p.conditions_)
    if (!condition(graph_, v)) return false;

  const size_t captured = match.captures_.size();
  if (!p.capture_.empty()) {
    if (const Value before = match.at(p.capture_); before.defined() && before != v) return false;
    match.captures_.emplace_back(p.capture_, v);
  }
  bool found = false;
  if (!p.alternatives_.empty()) {
    found = std::any_of(p.alternatives_.begin(), p.alternatives_.end(),
                        [&](const Pattern& alternative) { return visit(alternative, v, match, next); });
  } else if (!p.operands_) {
    found = next();
  } else {
    found = visit_operands(p, node->inputs, 0, match, next);
    if (!found && node->op->traits.commutative && node->inputs.size() == 2)
      found = visit_operands(p, {node->inputs[1], node->inputs[0]}, 0, match, next);
  }
  if (!found) match.captures_.resize(captured);
  return found;
}

bool Matcher::visit_operands(const Pattern& p, const std::vector<Value>& inputs, size_t i, Match& match,
                             const Next& next) const {
  if (i == inputs.size()) return next();
  return visit((*p.operands_)[i], inputs[i], match, [&] { return visit_operands(p, inputs, i + 1, match, next); });
}

}  // namespace deepseek::graph
