#include "graph/attrs.h"

#include <algorithm>
#include <cstring>

#include "graph/text.h"

namespace deepseek::graph {

std::string_view to_string(AttrKind kind) {
  constexpr std::string_view kNames[] = {"bool",           "int",   "float",  "string", "list of ints",
                                         "list of floats", "dtype", "tensor", "graph"};
  return kNames[static_cast<int>(kind)];
}

void Attrs::set(std::string_view name, AttrValue value) {
  auto it =
      std::lower_bound(items_.begin(), items_.end(), name, [](const auto& item, auto n) { return item.first < n; });
  if (it != items_.end() && it->first == name)
    it->second = std::move(value);
  else
    items_.insert(it, {std::string(name), std::move(value)});
}

const AttrValue* Attrs::find(std::string_view name) const {
  for (const auto& item : items_)
    if (item.first == name) return &item.second;
  return nullptr;
}

bool same_value(const AttrValue& a, const AttrValue& b) {
  if (a.index() != b.index()) return false;
  if (const Tensor* x = std::get_if<Tensor>(&a)) {
    const Tensor& y = std::get<Tensor>(b);
    return x->type() == y.type() && std::memcmp(x->data(), y.data(), x->num_bytes()) == 0;
  }
  if (const GraphRef* x = std::get_if<GraphRef>(&a)) {
    const GraphRef& y = std::get<GraphRef>(b);
    return *x == y || (*x && y && print(**x) == print(*y));
  }
  return a == b;
}

bool operator==(const Attrs& a, const Attrs& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& x, const auto& y) { return x.first == y.first && same_value(x.second, y.second); });
}

}  // namespace deepseek::graph
