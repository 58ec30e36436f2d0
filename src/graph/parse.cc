#include <cctype>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "graph/builder.h"
#include "graph/text.h"

namespace deepseek::graph {
namespace {

constexpr int kMaxDepth = 16;  // nested bodies

// Recursive descent over the text; every function returns false after setting error_ once.
class Parser {
 public:
  Parser(std::string_view text, const OpRegistry& registry, std::string_view where, const ParseOptions& options)
      : text_(text), registry_(registry), where_(where), options_(options) {}

  Result<Graph> run() {
    Graph graph;
    if (!graph_block(graph, 0)) return error_;
    skip();
    if (pos_ != text_.size()) {
      fail("end of text");
      return error_;
    }
    return graph;
  }

 private:
  // --- lexing
  void skip() {
    while (pos_ < text_.size()) {
      if (std::isspace(static_cast<unsigned char>(text_[pos_])))
        ++pos_;
      else if (text_[pos_] == '#')
        while (pos_ < text_.size() && text_[pos_] != '\n') ++pos_;
      else
        break;
    }
  }
  std::string location(size_t pos) const {
    size_t line = 1, column = 1;
    for (size_t i = 0; i < pos && i < text_.size(); ++i) {
      ++column;
      if (text_[i] == '\n') ++line, column = 1;
    }
    return fmt::format("{}:{}:{}", where_, line, column);
  }
  bool fail(std::string_view expected) {
    skip();
    std::string got = pos_ < text_.size() ? "'" + std::string(text_.substr(pos_, 12)) + "'" : "end of text";
    if (const size_t end = got.find('\n'); end != std::string::npos) got = got.substr(0, end) + "'";
    return fail(pos_, fmt::format("expected {}, got {}", expected, got));
  }
  bool fail(size_t pos, std::string message) {
    if (error_.ok()) error_ = invalid("{}: {}", location(pos), message);
    return false;
  }
  bool peek(std::string_view token) {
    skip();
    return text_.substr(pos_, token.size()) == token;
  }
  bool accept(std::string_view token) {
    if (!peek(token)) return false;
    pos_ += token.size();
    return true;
  }
  bool expect(std::string_view token) { return accept(token) || fail("'" + std::string(token) + "'"); }
  std::string_view word() {
    skip();
    const size_t begin = pos_;
    while (pos_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[pos_])) || text_[pos_] == '_')) ++pos_;
    return text_.substr(begin, pos_ - begin);
  }
  bool quoted(std::string& out) {
    out.clear();
    if (!expect("\"")) return false;
    for (; pos_ < text_.size(); ++pos_) {
      if (text_[pos_] == '"') return ++pos_, true;
      if (text_[pos_] == '\\' && pos_ + 1 < text_.size()) {
        ++pos_;
        out += text_[pos_] == 'n' ? '\n' : text_[pos_];
      } else {
        out += text_[pos_];
      }
    }
    return fail("a closing quote");
  }
  std::string_view number_token() {
    skip();
    const size_t begin = pos_;
    while (pos_ < text_.size() &&
           (std::isalnum(static_cast<unsigned char>(text_[pos_])) || std::strchr("+-.", text_[pos_])))
      ++pos_;
    return text_.substr(begin, pos_ - begin);
  }
  bool integer(int64_t& out) {
    skip();
    const size_t begin = pos_;
    const std::string_view token = number_token();
    const auto [end, ec] = std::from_chars(token.data(), token.data() + token.size(), out);
    if (ec == std::errc() && end == token.data() + token.size()) return true;
    pos_ = begin;
    return fail("an integer of 64 bits");
  }
  bool real(double& out) {
    skip();
    const size_t begin = pos_;
    const std::string_view token = number_token();
    const auto [end, ec] = std::from_chars(token.data(), token.data() + token.size(), out);
    if (ec == std::errc() && end == token.data() + token.size()) return true;
    pos_ = begin;
    return fail("a number");
  }

  // --- types and attributes
  bool dtype(DType& out) {
    skip();
    const size_t begin = pos_;
    Result<DType> parsed = parse_dtype(word());
    if (!parsed.ok()) return fail(begin, parsed.status().message());
    out = *parsed;
    return true;
  }
  bool type(TensorType& out) {
    if (!dtype(out.dtype) || !int_list(out.dims)) return false;
    if (Status s = check_size(out); !s.ok()) return fail(pos_, s.message());
    if (peek("{c")) {
      accept("{c");
      if (!integer(out.channel_block) || !expect("}")) return false;
      if (out.rank() < 2 || out.channel_block < 1 || out.dims[1] % out.channel_block != 0)
        return fail(pos_, "the channel block must divide axis 1 of " + to_string(out.dims));
    }
    return true;
  }
  bool int_list(std::vector<int64_t>& out) {
    out.clear();
    if (!expect("[")) return false;
    if (accept("]")) return true;
    do {
      int64_t v = 0;
      if (!integer(v)) return false;
      out.push_back(v);
    } while (accept(","));
    return expect("]");
  }
  bool tensor(Tensor& out) {
    TensorType t;
    if (!type(t) || !expect("<")) return false;
    if (peek("\"")) return tensor_outside(t, out) && expect(">");
    // Each element takes at least one character, so a short text can't ask for much memory.
    if (t.num_elements() > static_cast<int64_t>(text_.size() - pos_))
      return fail("as many elements as " + to_string(t));
    out = Tensor(t);
    for (int64_t i = 0; i < t.num_elements(); ++i) {
      if (i && !expect(",")) return false;
      if (t.dtype == DType::kI64) {
        if (!integer(out.as<int64_t>()[i])) return false;
      } else {
        double v = 0;
        if (!real(v)) return false;
        out.set(i, v);
      }
    }
    return expect(">");
  }
  bool tensor_outside(const TensorType& type, Tensor& out) {
    const size_t begin = pos_;
    std::string name;
    if (!quoted(name)) return false;
    if (!options_.outside) return fail(begin, "a tensor '" + name + "' outside of the text, which is all there is");
    Result<Tensor> found = options_.outside(name);
    if (!found.ok()) return fail(begin, found.status().message());
    out = std::move(found).value();
    if (out.type() == type) return true;
    return fail(begin, fmt::format("tensor '{}': expected {}, got {}", name, to_string(type), to_string(out.type())));
  }
  bool attribute(const AttrSpec& spec, AttrValue& out, int depth) {
    switch (spec.kind) {
      case AttrKind::kBool:
        if (accept("true")) return out = true, true;
        if (accept("false")) return out = false, true;
        return fail("true or false");
      case AttrKind::kInt: return integer(out.emplace<int64_t>());
      case AttrKind::kFloat: return real(out.emplace<double>());
      case AttrKind::kString: return quoted(out.emplace<std::string>());
      case AttrKind::kInts: return int_list(out.emplace<std::vector<int64_t>>());
      case AttrKind::kFloats: {
        auto& list = out.emplace<std::vector<double>>();
        if (!expect("f[")) return false;
        if (accept("]")) return true;
        do {
          if (!real(list.emplace_back())) return false;
        } while (accept(","));
        return expect("]");
      }
      case AttrKind::kDType: return dtype(out.emplace<DType>());
      case AttrKind::kTensor: return tensor(out.emplace<Tensor>());
      case AttrKind::kGraph: {
        Graph body;
        if (!graph_block(body, depth + 1)) return false;
        out = std::make_shared<const Graph>(std::move(body));
        return true;
      }
    }
    return false;
  }

  // --- statements
  bool reference(std::string& out) {
    if (!expect("%")) return false;
    out = word();
    return !out.empty() || fail("a value's name");
  }
  bool value(const std::map<std::string, Value>& names, Value& out) {
    skip();
    const size_t begin = pos_;
    std::string name;
    if (!reference(name)) return false;
    auto it = names.find(name);
    if (it == names.end()) return fail(begin, "%" + name + " is not defined above");
    out = it->second;
    return true;
  }
  bool node(Graph::Data& data, std::map<std::string, Value>& names, int depth) {
    const size_t begin = pos_;
    std::vector<std::string> results;
    do {
      if (!reference(results.emplace_back())) return false;
    } while (accept(","));
    if (!expect("=")) return false;
    skip();
    const size_t op_pos = pos_;
    const std::string op(word());
    Node n;
    n.op = registry_.find(op);
    if (n.op == nullptr) return fail(op_pos, "'" + op + "' is no registered op");
    if (!expect("(")) return false;
    if (!accept(")")) {
      do {
        if (!value(names, n.inputs.emplace_back())) return false;
      } while (accept(","));
      if (!expect(")")) return false;
    }
    if (accept("{") && !accept("}")) {
      do {
        skip();
        const size_t attr_pos = pos_;
        const std::string name(word());
        const AttrSpec* spec = n.op->find_attr(name);
        if (spec == nullptr) return fail(attr_pos, fmt::format("op '{}' has no attribute '{}'", op, name));
        AttrValue v;
        if (!expect("=") || !attribute(*spec, v, depth)) return false;
        n.attrs.set(name, std::move(v));
      } while (accept(","));
      if (!expect("}")) return false;
    }
    if (options_.fill_defaults)
      for (const AttrSpec& spec : n.op->attrs)
        if (spec.default_value && n.attrs.find(spec.name) == nullptr) n.attrs.set(spec.name, *spec.default_value);
    // Checked at once, though verify() does it again, so that the error has the node's place in the text.
    OpContext context{n.op, {}, &n.attrs};
    for (Value v : n.inputs) context.inputs.push_back(data.types[static_cast<size_t>(v.id)]);
    for (TensorType& t : context.inputs) t.channel_block = 1;
    if (Result<std::vector<TensorType>> types = infer_types(context); !types.ok())
      return fail(begin, fmt::format("op '{}': {}", op, types.status().message()));
    if (!expect(":")) return false;
    n.num_outputs = static_cast<int32_t>(results.size());
    n.first_output = {static_cast<int32_t>(data.types.size())};
    for (size_t i = 0; i < results.size(); ++i) {
      TensorType t;
      if ((i && !expect(",")) || !type(t)) return false;
      if (!names.emplace(results[i], Value{static_cast<int32_t>(data.types.size())}).second)
        return fail(begin, "%" + results[i] + " is defined twice");
      data.types.push_back(std::move(t));
      data.producer.push_back(static_cast<int32_t>(data.nodes.size()));
    }
    if (accept("@") && !quoted(n.scope)) return false;
    data.nodes.push_back(std::move(n));
    return true;
  }
  bool graph_block(Graph& out, int depth) {
    if (depth > kMaxDepth) return fail(pos_, "graphs are nested too deeply");
    if (!expect("graph") || !expect("{")) return false;
    const size_t begin = pos_;
    Graph::Data data;
    data.registry = &registry_;
    std::map<std::string, Value> names;
    while (!accept("}")) {
      if (peek("%")) {
        if (!node(data, names, depth)) return false;
        continue;
      }
      skip();
      const size_t statement = pos_;
      const std::string_view kind = word();
      std::string name, ref;
      if (kind == "input" || kind == "state") {
        TensorType t;
        if (!reference(ref) || !quoted(name) || !expect(":") || !type(t)) return false;
        const Value v{static_cast<int32_t>(data.types.size())};
        if (!names.emplace(ref, v).second) return fail(statement, "%" + ref + " is defined twice");
        data.types.push_back(std::move(t));
        data.producer.push_back(-1);
        data.inputs.push_back({name, kind == "state" ? InputKind::kState : InputKind::kData, v});
      } else if (kind == "output") {
        Value v;
        if (!quoted(name) || !value(names, v)) return false;
        data.outputs.push_back({name, v});
      } else if (kind == "update") {
        Value v;
        if (!quoted(name) || !value(names, v)) return false;
        size_t i = 0;
        while (i < data.inputs.size() && data.inputs[i].name != name) ++i;
        if (i == data.inputs.size()) return fail(statement, "update of '" + name + "', which is no input");
        data.updates.push_back({static_cast<int32_t>(i), v});
      } else {
        pos_ = statement;
        return fail("input, state, output, update, a node or '}'");
      }
    }
    out = Graph(std::move(data));
    // Inference on contradictory text is the writer's mistake here, not ours.
    if (Status s = verify(out); !s.ok()) return fail(begin, s.message());
    return true;
  }

  std::string_view text_;
  const OpRegistry& registry_;
  std::string where_;
  const ParseOptions& options_;
  size_t pos_ = 0;
  Status error_;
};

}  // namespace

Result<Graph> parse(std::string_view text, const OpRegistry& registry, std::string_view where,
                    const ParseOptions& options) {
  return Parser(text, registry, where, options).run();
}

}  // namespace deepseek::graph
