#include "passes/block_channels.h"

#include <algorithm>
#include <map>
#include <optional>

#include "ops/blocked_conv.h"
#include "ops/common.h"

namespace deepseek::passes {

using namespace graph;

namespace {

class Blocker {
 public:
  Blocker(const Graph& graph, const Target& target)
      : graph_(graph), target_(target), builder_(graph.registry()), forms_(static_cast<size_t>(graph.num_values())) {}

  Result<Graph> run() {
    for (const Input& input : graph_.inputs())
      forms_[input.value.id].plain = builder_.input(input.name, graph_.type(input.value), input.kind);
    for (const Node& node : graph_.nodes()) {
      builder_.set_scope(node.scope);
      if (!convert(node)) keep(node);
      DS_TRY(builder_.status());
    }
    if (!changed_) return graph_;
    for (const Output& output : graph_.outputs()) builder_.output(output.name, plain(output.value));
    for (const Update& update : graph_.updates())
      builder_.update(forms_[graph_.inputs()[update.input].value.id].plain, plain(update.value));
    return builder_.finish();
  }

 private:
  // How a value of the old graph exists in the new one; at least one of the three is there.
  struct Form {
    Expr plain, blocked;
    const Node* broadcast = nullptr;  // a broadcast_to, emitted in the form that is asked for
    bool flat_index = false;          // elements are positions in a plane, whose blocked form counts the block too
  };

  Expr plain(Value v) {
    Form& f = forms_[v.id];
    if (!f.plain.defined() && f.broadcast != nullptr)
      f.plain = emit(*f.broadcast, {plain(f.broadcast->inputs[0])}, f.broadcast->attrs)[0];
    if (!f.plain.defined()) {
      Expr x = f.blocked;
      if (f.flat_index) x = x / ops::constant_like(x, static_cast<double>(x.dim(-1)));
      f.plain = ops::unblock_channels(x);
    }
    return f.plain;
  }

  // v, of rank >= 3, in blocks of `block` channels.
  Expr blocked(Value v, int64_t block) {
    Form& f = forms_[v.id];
    if (f.blocked.defined() && f.blocked.dim(-1) == block) return f.blocked;
    if (f.blocked.defined() || f.broadcast == nullptr) {
      Expr x = ops::block_channels(plain(v), block);
      if (!f.blocked.defined()) f.blocked = x;
      return x;
    }
    const Dims& dims = graph_.type(v).dims;
    const std::optional<Expr> x = aligned(f.broadcast->inputs[0], dims, block);
    f.blocked = x ? ops::broadcast_to(*x, ops::blocked_dims(dims, block)) : ops::block_channels(plain(v), block);
    return f.blocked;
  }

  // The block in which v is at hand, or 0. A broadcast takes the form that other values of its shape have.
  int64_t block_of(Value v) const {
    const Form& f = forms_[v.id];
    if (f.blocked.defined()) return f.blocked.dim(-1);
    if (f.broadcast == nullptr || f.plain.defined()) return 0;
    const auto it = blocks_.find(graph_.type(v).dims);
    return it == blocks_.end() ? 0 : it->second;
  }

  // v, which broadcasts to `dims`, such that it broadcasts to the blocked form of `dims`.
  std::optional<Expr> aligned(Value v, const Dims& dims, int64_t block) {
    const Dims& own = graph_.type(v).dims;
    if (own == dims) return blocked(v, block);
    Dims full(dims.size() - own.size(), 1);
    full.insert(full.end(), own.begin(), own.end());
    if (full[1] != 1) {
      if (full[1] % block != 0) return std::nullopt;
      if (full == own) return blocked(v, block);
      return ops::block_channels(ops::reshape(plain(v), full), block);
    }
    if (own.empty()) return plain(v);
    full.push_back(1);
    return ops::reshape(plain(v), full);
  }

  std::vector<Expr> emit(const Node& node, std::vector<Expr> inputs, Attrs attrs) {
    return builder_.emit(node.op_name(), std::move(inputs), std::move(attrs));
  }

  void keep(const Node& node) {
    if (node.op_name() == "broadcast_to" && node.attrs.ints("dims").size() >= 3) {
      forms_[node.output().id].broadcast = &node;
      return;
    }
    std::vector<Expr> inputs;
    for (Value v : node.inputs) inputs.push_back(plain(v));
    const std::vector<Expr> results = emit(node, std::move(inputs), node.attrs);
    for (size_t i = 0; i < results.size(); ++i) forms_[node.output(static_cast<int32_t>(i)).id].plain = results[i];
  }

  void set_blocked(const Node& node, int32_t output, Expr x) {
    const Value v = node.output(output);
    forms_[v.id].blocked = x;
    blocks_.emplace(graph_.type(v).dims, x.dim(-1));
  }

  // Emits `node` on blocked operands, or says that it can't.
  bool convert(const Node& node) {
    const std::string& op = node.op_name();
    if (op == "conv" || op == "conv_input_grad" || op == "conv_weight_grad") return convert_conv(node, op);
    if (node.op->traits.elementwise) return convert_elementwise(node);
    if (op == "sum" || op == "mean" || op == "max" || op == "min" || op == "prod") return convert_reduction(node);
    if (op == "batch_norm" || op == "batch_norm_inference") return convert_batch_norm(node, 0);
    if (op == "batch_norm_grad") return convert_batch_norm(node, 1);
    if (op == "max_pool" || op == "avg_pool" || op == "max_pool_grad" || op == "avg_pool_grad")
      return convert_pool(node, op);
    return false;
  }

  bool convert_conv(const Node& node, const std::string& op) {
    const ChannelBlocks block = target_.channel_blocks(graph_, node);
    if (block.x == 0 || block.y == 0) return false;
    changed_ = true;
    Attrs attrs;
    for (const char* name : {"stride", "padding_low", "padding_high", "dilation"})
      attrs.set(name, node.attrs.ints(name));
    if (node.attrs.integer("groups") > 1) return convert_depthwise(node, op, block.x, std::move(attrs));
    if (op == "conv_weight_grad") {
      attrs.set("kernel", node.attrs.ints("kernel"));
      Expr dw = builder_.op("blocked_" + op, {blocked(node.inputs[0], block.x), blocked(node.inputs[1], block.y)},
                            std::move(attrs));
      forms_[node.output().id].plain = ops::unblock_weights(dw);
      return true;
    }
    Expr w = plain(node.inputs[1]);
    if (op == "conv") {
      set_blocked(
          node, 0,
          builder_.op("blocked_conv", {blocked(node.inputs[0], block.x), ops::block_weights(w, block.y, block.x)},
                      std::move(attrs)));
      return true;
    }
    attrs.set("input_dims", ops::blocked_dims(node.attrs.ints("input_dims"), block.x));
    w = ops::block_weights(w, block.y, block.x, true);
    set_blocked(node, 0, builder_.op("blocked_" + op, {blocked(node.inputs[0], block.y), w}, std::move(attrs)));
    return true;
  }

  bool convert_depthwise(const Node& node, const std::string& op, int64_t block, Attrs attrs) {
    const std::string name = "depthwise_" + op;
    Expr first = blocked(node.inputs[0], block);
    if (op == "conv_weight_grad") {
      attrs.set("kernel", node.attrs.ints("kernel"));
      Expr dw = builder_.op(name, {first, blocked(node.inputs[1], block)}, std::move(attrs));
      forms_[node.output().id].plain = ops::unblock_depthwise_weights(dw);
      return true;
    }
    if (op == "conv_input_grad") attrs.set("input_dims", ops::blocked_dims(node.attrs.ints("input_dims"), block));
    Expr w = ops::block_depthwise_weights(plain(node.inputs[1]), block);
    set_blocked(node, 0, builder_.op(name, {first, w}, std::move(attrs)));
    return true;
  }

  bool convert_elementwise(const Node& node) {
    if (node.num_outputs != 1 || node.op_name() == "broadcast_to") return false;
    const Dims& dims = graph_.type(node.output()).dims;
    if (dims.size() < 3) return false;
    int64_t block = 0;
    for (Value v : node.inputs)
      if (block == 0 && graph_.type(v).dims == dims) block = block_of(v);
    if (block == 0) return false;
    std::vector<Expr> inputs;
    for (Value v : node.inputs) {
      std::optional<Expr> x = aligned(v, dims, block);
      if (!x) return false;
      inputs.push_back(*x);
    }
    set_blocked(node, 0, emit(node, std::move(inputs), node.attrs)[0]);
    return true;
  }

  // The blocked form keeps the order of what is left if no pixels are, or no channels.
  bool convert_reduction(const Node& node) {
    const Value v = node.inputs[0];
    const int64_t block = block_of(v);
    if (block == 0) return false;
    const int64_t rank = graph_.type(v).rank();
    const Result<Dims> axes = ops::normalize_axes(node.attrs.ints("axes"), rank);
    if (!axes.ok()) return false;
    const bool channels = std::find(axes->begin(), axes->end(), 1) != axes->end();
    const auto spatial = std::count_if(axes->begin(), axes->end(), [](int64_t a) { return a >= 2; });
    if (!channels && spatial != rank - 2) return false;
    Dims wider = *axes;
    if (channels) wider.push_back(rank);
    Attrs attrs = node.attrs;
    attrs.set("axes", wider);
    attrs.set("keepdims", false);
    forms_[node.output().id].plain =
        ops::reshape(emit(node, {blocked(v, block)}, std::move(attrs))[0], graph_.type(node.output()).dims);
    return true;
  }

  bool convert_batch_norm(const Node& node, size_t x) {
    const Value v = node.inputs[x];
    const int64_t block = block_of(v);
    if (block == 0 || node.attrs.integer("channel_block") != 0) return false;
    std::vector<Expr> inputs;
    for (size_t i = 0; i < node.inputs.size(); ++i)
      inputs.push_back(i <= x ? blocked(node.inputs[i], block) : plain(node.inputs[i]));
    Attrs attrs = node.attrs;
    attrs.set("channel_block", block);
    const std::vector<Expr> results = emit(node, std::move(inputs), std::move(attrs));
    set_blocked(node, 0, results[0]);
    for (size_t i = 1; i < results.size(); ++i) forms_[node.output(static_cast<int32_t>(i)).id].plain = results[i];
    return true;
  }

  // The block is one more spatial axis, over which nothing slides. A gradient by index follows the forward op.
  bool convert_pool(const Node& node, const std::string& op) {
    const Value leader = node.inputs[op == "max_pool_grad" ? 1 : 0];
    const int64_t block = block_of(leader);
    if (block == 0 || graph_.type(leader).rank() != 4) return false;
    Attrs attrs = node.attrs;
    if (node.op->find_attr("kernel") != nullptr) {
      const auto extend = [&](const char* name, int64_t value, Dims fallback) {
        if (node.op->find_attr(name) == nullptr) return;
        Dims list = node.attrs.ints(name);
        if (list.empty()) list = std::move(fallback);
        list.push_back(value);
        attrs.set(name, list);
      };
      const Dims& kernel = node.attrs.ints("kernel");
      extend("stride", 1, kernel);
      extend("padding_low", 0, Dims(kernel.size(), 0));
      extend("padding_high", 0, Dims(kernel.size(), 0));
      extend("dilation", 1, Dims(kernel.size(), 1));
      extend("kernel", 1, {});
    }
    if (node.op->find_attr("input_dims") != nullptr)
      attrs.set("input_dims", ops::blocked_dims(node.attrs.ints("input_dims"), block));
    std::vector<Expr> inputs;
    for (Value v : node.inputs) inputs.push_back(blocked(v, block));
    const std::vector<Expr> results = emit(node, std::move(inputs), std::move(attrs));
    for (size_t i = 0; i < results.size(); ++i) set_blocked(node, static_cast<int32_t>(i), results[i]);
    if (op == "max_pool") forms_[node.output(1).id].flat_index = true;
    return true;
  }

  const Graph& graph_;
  const Target& target_;
  Builder builder_;
  std::vector<Form> forms_;
  std::map<Dims, int64_t> blocks_;  // by shape
  bool changed_ = false;
};

}  // namespace

Result<Graph> block_channels(const Graph& graph, const ChooseBlock& choose) { return Blocker(graph, choose).run(); }

}  // namespace deepseek::passes
