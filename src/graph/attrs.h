// Attributes of a node: small sorted map from name to value. Values are plain data, so that the text form round-trips.
// Test: tests/graph/text_test.cc
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "graph/tensor.h"

namespace deepseek::graph {

class Graph;
using GraphRef = std::shared_ptr<const Graph>;  // a body: scan's step, a fused group

using AttrValue = std::variant<bool, int64_t, double, std::string, std::vector<int64_t>, std::vector<double>, DType,
                               Tensor, GraphRef>;
// Same order as AttrValue's alternatives.
enum class AttrKind { kBool, kInt, kFloat, kString, kInts, kFloats, kDType, kTensor, kGraph };
std::string_view to_string(AttrKind kind);

class Attrs {
 public:
  Attrs() = default;
  Attrs(std::initializer_list<std::pair<std::string, AttrValue>> items) {
    for (const auto& [name, value] : items) set(name, value);
  }
  void set(std::string_view name, AttrValue value);
  const AttrValue* find(std::string_view name) const;
  // The attribute must exist with this type: the builder fills in defaults and checks kinds before a node exists.
  template <class T>
  const T& get(std::string_view name) const {
    return std::get<T>(*find(name));
  }
  bool flag(std::string_view name) const { return get<bool>(name); }
  int64_t integer(std::string_view name) const { return get<int64_t>(name); }
  double number(std::string_view name) const { return get<double>(name); }
  const std::string& text(std::string_view name) const { return get<std::string>(name); }
  const std::vector<int64_t>& ints(std::string_view name) const { return get<std::vector<int64_t>>(name); }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }
  bool empty() const { return items_.empty(); }

 private:
  std::vector<std::pair<std::string, AttrValue>> items_;
};

// Equal by value; tensors by type and bytes, bodies by text.
bool same_value(const AttrValue& a, const AttrValue& b);
bool operator==(const Attrs& a, const Attrs& b);

}  // namespace deepseek::graph
