#include <fmt/format.h>

#include <cmath>

#include "graph/text.h"

namespace deepseek::graph {
namespace {

std::string quote(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out + "\"";
}

// Shortest text that reads back to the same number; always recognisable as a float.
template <class T>
std::string number(T value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

template <class List, class Item>
std::string join(const List& list, Item item) {
  std::string out;
  for (size_t i = 0; i < list.size(); ++i) out += (i ? "," : "") + item(list[i]);
  return out;
}

std::string print_tensor(const Tensor& t) {
  std::string out = to_string(t.type()) + "<";
  for (int64_t i = 0; i < t.num_elements(); ++i) {
    if (i) out += ',';
    if (t.dtype() == DType::kF64)
      out += number(t.at(i));
    else if (is_float(t.dtype()))
      out += number(static_cast<float>(t.at(i)));
    else if (t.dtype() == DType::kI64)
      out += std::to_string(t.as<int64_t>()[i]);
    else
      out += std::to_string(static_cast<int64_t>(t.at(i)));
  }
  return out + ">";
}

std::string print_graph(const Graph& graph, const std::string& indent, const NameTensor& outside);

struct Printer {
  std::string indent;
  const NameTensor& outside;
  std::string operator()(bool v) const { return v ? "true" : "false"; }
  std::string operator()(int64_t v) const { return std::to_string(v); }
  std::string operator()(double v) const { return number(v); }
  std::string operator()(const std::string& v) const { return quote(v); }
  std::string operator()(const std::vector<int64_t>& v) const {
    return "[" + join(v, [](int64_t x) { return std::to_string(x); }) + "]";
  }
  // "f" tells an empty list of floats from one of ints.
  std::string operator()(const std::vector<double>& v) const {
    return "f[" + join(v, [](double x) { return number(x); }) + "]";
  }
  std::string operator()(DType v) const { return std::string(to_string(v)); }
  std::string operator()(const Tensor& v) const {
    const std::optional<std::string> name = outside ? outside(v) : std::nullopt;
    return name ? to_string(v.type()) + "<" + quote(*name) + ">" : print_tensor(v);
  }
  std::string operator()(const GraphRef& v) const { return v ? print_graph(*v, indent, outside) : "graph {}"; }
};

std::string print_graph(const Graph& graph, const std::string& indent, const NameTensor& outside) {
  const std::string in = indent + "  ";
  const auto ref = [](Value v) { return "%" + std::to_string(v.id); };
  std::string out = "graph {\n";
  for (const Input& i : graph.inputs())
    out += fmt::format("{}{} {} {} : {}\n", in, i.kind == InputKind::kState ? "state" : "input", ref(i.value),
                       quote(i.name), to_string(graph.type(i.value)));
  for (const Node& node : graph.nodes()) {
    std::vector<Value> results;
    for (int32_t i = 0; i < node.num_outputs; ++i) results.push_back(node.output(i));
    out += in + join(results, ref) + " = " + node.op_name() + "(" + join(node.inputs, ref) + ")";
    if (!node.attrs.empty()) {
      std::string attrs;
      for (const auto& [name, value] : node.attrs)
        attrs += (attrs.empty() ? "" : ", ") + name + "=" + std::visit(Printer{in, outside}, value);
      out += " {" + attrs + "}";
    }
    out += " : " + join(results, [&](Value v) { return to_string(graph.type(v)); });
    if (!node.scope.empty()) out += " @" + quote(node.scope);
    out += "\n";
  }
  for (const Output& o : graph.outputs()) out += fmt::format("{}output {} {}\n", in, quote(o.name), ref(o.value));
  for (const Update& u : graph.updates())
    out += fmt::format("{}update {} {}\n", in, quote(graph.inputs()[u.input].name), ref(u.value));
  return out + indent + "}";
}

}  // namespace

std::string print(const Graph& graph, const NameTensor& outside) {
  return graph.defined() ? print_graph(graph, "", outside) + "\n" : "graph {}\n";
}
std::string print(const AttrValue& value) { return std::visit(Printer{"", {}}, value); }

}  // namespace deepseek::graph
