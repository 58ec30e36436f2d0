#include "graph/resize.h"

#include <cstring>
#include <optional>

#include "graph/cloner.h"

namespace deepseek::graph {

namespace {

constexpr size_t kMostTraces = 4;  // of inputs that differ in sizes alone

std::vector<TensorType> data_types(const Graph& graph) {
  std::vector<TensorType> types;
  for (const Input& input : graph.inputs())
    if (input.kind == InputKind::kData) types.push_back(graph.type(input.value));
  return types;
}

// The value of all elements, if it is one.
std::optional<double> only_value(const Tensor& t) {
  if (t.num_elements() == 0) return std::nullopt;
  const size_t size = size_of(t.dtype());
  for (int64_t i = 1; i < t.num_elements(); ++i)
    if (std::memcmp(t.data(), t.as<char>() + static_cast<size_t>(i) * size, size) != 0) return std::nullopt;
  return t.at(0);
}

class Resizer {
 public:
  Resizer(int64_t a, int64_t b, int64_t wanted) : a_(a), b_(b), wanted_(wanted) {}

  Result<int64_t> size(int64_t a, int64_t b) const {
    if (a == b) return a;
    if (a % a_ == 0 && b % b_ == 0 && a / a_ == b / b_) return a / a_ * wanted_;
    return invalid("{} at size {} and {} at {} are not proportional", a, a_, b, b_);
  }

  Result<Dims> dims(const Dims& a, const Dims& b) const {
    if (a.size() != b.size()) return invalid("{} and {} differ in length", to_string(a), to_string(b));
    Dims out;
    for (size_t i = 0; i < a.size(); ++i) {
      DS_ASSIGN(const int64_t d, size(a[i], b[i]));
      out.push_back(d);
    }
    return out;
  }

  Result<TensorType> type(const TensorType& a, const TensorType& b) const {
    if (a.dtype != b.dtype) return invalid("{} and {} differ in dtype", to_string(a), to_string(b));
    DS_ASSIGN(Dims d, dims(a.dims, b.dims));
    return TensorType{a.dtype, std::move(d)};
  }

  Result<Graph> graph(const Graph& a, const Graph& b) const {
    if (a.inputs().size() != b.inputs().size() || a.nodes().size() != b.nodes().size() ||
        a.outputs().size() != b.outputs().size() || a.updates().size() != b.updates().size())
      return invalid("the traces have {} and {} nodes, {} and {} inputs", a.nodes().size(), b.nodes().size(),
                     a.inputs().size(), b.inputs().size());
    if (!std::equal(a.observed().begin(), a.observed().end(), b.observed().begin(), b.observed().end()))
      return invalid("the code looks at a size that differs");
    Builder builder(a.registry());
    Cloner cloner(builder, a);
    for (size_t i = 0; i < a.inputs().size(); ++i) {
      const Input &x = a.inputs()[i], &y = b.inputs()[i];
      if (x.name != y.name || x.kind != y.kind || x.value != y.value)
        return invalid("inputs '{}' and '{}' differ", x.name, y.name);
      DS_ASSIGN(TensorType t, type(a.type(x.value), b.type(y.value)));
      cloner[x.value] = builder.input(x.name, std::move(t), x.kind);
    }
    for (size_t n = 0; n < a.nodes().size(); ++n) {
      const Node &x = a.nodes()[n], &y = b.nodes()[n];
      if (Status s = node(builder, cloner, a, b, x, y); !s.ok())
        return std::move(s).note(fmt::format("at [{}] node '{}'", x.op_name(), x.scope));
    }
    for (size_t i = 0; i < a.outputs().size(); ++i) {
      const Output &x = a.outputs()[i], &y = b.outputs()[i];
      if (x.name != y.name || x.value != y.value) return invalid("outputs '{}' and '{}' differ", x.name, y.name);
    }
    for (size_t i = 0; i < a.updates().size(); ++i) {
      const Update &x = a.updates()[i], &y = b.updates()[i];
      if (x.input != y.input || x.value != y.value) return invalid("updates differ");
    }
    cloner.results();
    return builder.finish();
  }

 private:
  Status node(const Builder& builder, Cloner& cloner, const Graph& a, const Graph& b, const Node& x,
              const Node& y) const {
    if (x.op != y.op || x.inputs != y.inputs || x.first_output != y.first_output || x.num_outputs != y.num_outputs)
      return invalid("the other trace has a [{}] there, or other inputs", y.op_name());
    DS_ASSIGN(Attrs attributes, attrs(x.attrs, y.attrs));
    cloner.copy(x, cloner.operands(x), std::move(attributes));
    DS_TRY(builder.status());
    for (int32_t i = 0; i < x.num_outputs; ++i) {
      const Expr result = cloner.at(x.output(i));
      DS_ASSIGN(const TensorType expected, type(a.type(x.output(i)), b.type(y.output(i))));
      if (result.type() != expected)
        return invalid("expected {}, inference gives {}", to_string(expected), to_string(result.type()));
    }
    return {};
  }

  Result<Attrs> attrs(const Attrs& a, const Attrs& b) const {
    Attrs out;
    for (const auto& [name, x] : a) {
      const AttrValue* y = b.find(name);
      if (y == nullptr || y->index() != x.index()) return invalid("attribute '{}' differs", name);
      if (same_value(x, *y)) {
        out.set(name, x);
      } else if (const auto* i = std::get_if<int64_t>(&x)) {
        DS_ASSIGN(const int64_t value, size(*i, std::get<int64_t>(*y)));
        out.set(name, value);
      } else if (const auto* list = std::get_if<Dims>(&x)) {
        DS_ASSIGN(Dims value, dims(*list, std::get<Dims>(*y)));
        out.set(name, std::move(value));
      } else if (const auto* body = std::get_if<GraphRef>(&x)) {
        DS_ASSIGN(Graph value, graph(**body, *std::get<GraphRef>(*y)));
        out.set(name, std::make_shared<const Graph>(std::move(value)));
      } else if (const auto* tensor = std::get_if<Tensor>(&x)) {
        const Tensor& other = std::get<Tensor>(*y);
        DS_ASSIGN(TensorType t, type(tensor->type(), other.type()));
        const std::optional<double> value = only_value(*tensor), again = only_value(other);
        if (!value || !again || *value != *again) return invalid("attribute '{}': constants of other numbers", name);
        out.set(name, Tensor::full(t.dtype, t.dims, *value));
      } else {
        return invalid("attribute '{}' differs", name);
      }
    }
    return out;
  }

  int64_t a_, b_, wanted_;
};

}  // namespace

Result<Graph> resize(const Graph& a, const Graph& b, std::span<const TensorType> inputs) {
  const std::vector<TensorType> x = data_types(a), y = data_types(b);
  if (x.size() != inputs.size() || y.size() != inputs.size()) return invalid("expected {} inputs", inputs.size());
  std::optional<Resizer> resizer;
  for (size_t i = 0; i < inputs.size() && !resizer; ++i)
    for (size_t k = 0; k < x[i].dims.size() && !resizer; ++k)
      if (k < y[i].dims.size() && k < inputs[i].dims.size() && x[i].dims[k] != y[i].dims[k]) {
        if (x[i].dims[k] < 1 || y[i].dims[k] < 1) return invalid("a size is 0");
        resizer.emplace(x[i].dims[k], y[i].dims[k], inputs[i].dims[k]);
      }
  if (!resizer) return invalid("the traces have the same sizes");
  for (size_t i = 0; i < inputs.size(); ++i) {
    DS_ASSIGN(const TensorType t, resizer->type(x[i], y[i]));
    if (t != inputs[i])
      return invalid("input {}: traces of {} and {} do not tell of {}", i, to_string(x[i]), to_string(y[i]),
                     to_string(inputs[i]));
  }
  return resizer->graph(a, b);
}

Result<Graph> Traces::get(std::span<const TensorType> inputs, const std::function<Result<Graph>()>& trace) {
  std::string key;
  for (const TensorType& t : inputs) key += fmt::format("{}[{}] ", to_string(t.dtype), t.rank());
  std::deque<Graph>& known = known_[key];
  for (const Graph& graph : known)
    if (const std::vector<TensorType> types = data_types(graph);
        std::equal(types.begin(), types.end(), inputs.begin(), inputs.end()))
      return graph;
  std::string reason = "fewer than two traces are there";
  for (size_t i = 0; i < known.size(); ++i)
    for (size_t k = i + 1; k < known.size(); ++k) {
      Result<Graph> resized = resize(known[i], known[k], inputs);
      if (resized.ok()) return resized;
      reason = resized.status().to_string();
    }
  DS_ASSIGN(Graph graph, trace());
  ++count_;
  reason_ = std::move(reason);
  known.push_front(graph);
  if (known.size() > kMostTraces) known.pop_back();
  return graph;
}

}  // namespace deepseek::graph
