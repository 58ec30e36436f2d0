#include "backends/cpu/tile_compile.h"

#include <algorithm>
#include <map>

#include "ops/common.h"
#include "passes/decompose.h"

namespace deepseek::backends::cpu {

using namespace graph;

namespace {

// The most steps of an inner loop through which operands that stay the same are copied out, so that tiles span rows.
constexpr int64_t kMostStays = 32;

// Row-major strides of `shape`, which broadcasts to `rank` axes; 0 where it is broadcast.
Dims broadcast_strides(const Dims& shape, size_t rank) {
  Dims strides(rank);
  int64_t step = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    const size_t axis = shape.size() - 1 - i;
    if (shape[axis] != 1) strides[rank - 1 - i] = step;
    step *= shape[axis];
  }
  return strides;
}

}  // namespace

bool is_tile_op(const Graph& graph, const Node& node) {
  const std::optional<TileOp> op = find_tile_op(node.op_name());
  return op && node.op->traits.elementwise && node.num_outputs == 1 &&
         node.inputs.size() == static_cast<size_t>(info_of(*op).operands) &&
         tile_fn(*op, compute_dtype(graph.type(node.inputs.back()).dtype),
                 compute_dtype(graph.type(node.output()).dtype)) != nullptr;
}

Result<TileProgram> TileProgram::compile(const Graph& original, int64_t max_period, Purpose purpose) {
  const auto apart = [](const Graph& g, const Node& node) {
    return node.op->decompose && !is_sum(node) && !is_tile_op(g, node);
  };
  Graph body = original;
  if (std::any_of(body.nodes().begin(), body.nodes().end(), [&](const Node& node) { return apart(body, node); })) {
    DS_ASSIGN(body, passes::decompose(original, apart));
  }
  TileProgram program;
  DS_TRY(Compiler(program, body, purpose).run(max_period));
  return program;
}

TileProgram::Compiler::Compiler(TileProgram& p, const Graph& b, Purpose why) : program(p), body(b), purpose(why) {
  const size_t count = static_cast<size_t>(body.num_values());
  place.resize(count);
  last_use.assign(count, -1);
  output_of.assign(count, -1);
  kept.resize(count);
  source.resize(count);
  // A broadcast is its source under another shape: both share a place and a lifetime.
  for (size_t v = 0; v < count; ++v) source[v] = static_cast<int32_t>(v);
  for (size_t n = 0; n < body.nodes().size(); ++n) {
    const Node& node = body.nodes()[n];
    if (node.op_name() == "broadcast_to") source[node.output().id] = source[node.inputs[0].id];
    for (Value v : node.inputs) last_use[source[v.id]] = static_cast<int32_t>(n);
    if (is_sum(node)) kept[source[node.inputs[0].id]] = true;
  }
  for (size_t o = 0; o < body.outputs().size(); ++o) {
    const int32_t v = body.outputs()[o].value.id;
    output_of[v] = static_cast<int>(o);
    kept[source[v]] = true;
  }
  join_products();
}

void TileProgram::Compiler::join_products() {
  const std::vector<int32_t> uses = body.use_counts();
  joined.assign(body.nodes().size(), -1);
  std::vector<bool> inside(joined.size());
  for (size_t n = 0; n < body.nodes().size(); ++n) {
    const Node& node = body.nodes()[n];
    const std::optional<TileOp> op = find_tile_op(node.op_name());
    if ((op != TileOp::kAdd && op != TileOp::kSub) || body.type(node.output()).dtype != DType::kF32) continue;
    for (int side = 0; side < 2 && joined[n] < 0; ++side) {
      const Node* product = body.producer(node.inputs[static_cast<size_t>(side)]);
      if (product == nullptr || find_tile_op(product->op_name()) != TileOp::kMul || uses[product->output().id] != 1)
        continue;
      joined[n] = side;
      inside[static_cast<size_t>(product - body.nodes().data())] = true;
      for (Value v : product->inputs)
        last_use[source[v.id]] = std::max(last_use[source[v.id]], static_cast<int32_t>(n));
    }
  }
  skipped = std::move(inside);
}

TileProgram::Operand TileProgram::Compiler::add_leaf(int input, Tensor constant, const TensorType& type) {
  const DType dtype = constant.defined() ? compute_dtype(type.dtype) : type.dtype;
  if (constant.defined() && is_half(type.dtype))
    constant = purpose == Purpose::kRun ? constant.cast(DType::kF32) : Tensor();
  program.leaves_.push_back({input, std::move(constant), dtype, {}});
  if (is_half(dtype)) program.leaves_.back().widen = tile_fn(TileOp::kCast, dtype, DType::kF32);
  leaf_dims.push_back(type.dims);
  return Operand{Operand::kLeaf, static_cast<int>(program.leaves_.size()) - 1};
}

int TileProgram::Compiler::take_register() {
  if (free_registers.empty()) return program.num_registers_++;
  const int reg = free_registers.back();
  free_registers.pop_back();
  return reg;
}

Status TileProgram::Compiler::find_dims() {
  bool found = false;
  for (const Output& output : body.outputs()) {
    const Node* node = body.producer(output.value);
    const Dims& d = body.type(node != nullptr && is_sum(*node) ? node->inputs[0] : output.value).dims;
    if (found && d != dims) return refuse("outputs of different shapes");
    dims = d;
    found = true;
  }
  if (!found) return refuse("a body without outputs");
  return product(dims) > 0 ? Status() : refuse("an empty result");  // nothing to walk through
}

Status TileProgram::Compiler::sum(const Node& node) {
  const Value x = node.inputs[0];
  if (compute_dtype(body.type(x).dtype) != DType::kF32)
    return refuse(fmt::format("sums of {} in a loop", to_string(body.type(x).dtype)));
  if (body.type(x).dims != dims) return refuse("a sum of a broadcast value");
  const int output = output_of[node.output().id];
  if (output < 0 || last_use[node.output().id] >= 0) return refuse("a sum that others read");
  DS_ASSIGN(const Dims axes, ops::normalize_axes(node.attrs.ints("axes"), static_cast<int64_t>(dims.size())));
  Dims result = dims;
  for (int64_t axis : axes) result[static_cast<size_t>(axis)] = 1;
  Sum s{place[x.id], output, {}, false, product(result), program.num_sums_, 1};
  if (node.op_name() == "mean") s.scale = static_cast<double>(s.size) / static_cast<double>(product(dims));
  program.num_sums_ += s.size;
  program.sums_.push_back(std::move(s));
  sum_dims.push_back(std::move(result));
  return {};
}

Status TileProgram::Compiler::instruction(const Node& node, int32_t n) {
  const int32_t v = node.output().id;
  const DType result = body.type({v}).dtype;
  const DType in = compute_dtype(body.type(node.inputs.back()).dtype);
  std::vector<Value> inputs = node.inputs;
  std::optional<TileOp> op = find_tile_op(node.op_name());
  if (const int side = joined[static_cast<size_t>(n)]; side >= 0) {
    const Node& product = *body.producer(node.inputs[static_cast<size_t>(side)]);
    op = op == TileOp::kAdd ? TileOp::kMulAdd : side == 0 ? TileOp::kMulSub : TileOp::kNegMulAdd;
    inputs = {product.inputs[0], product.inputs[1], node.inputs[static_cast<size_t>(1 - side)]};
  }
  const TileFn fn = op ? tile_fn(*op, in, compute_dtype(result)) : nullptr;
  if (fn == nullptr)
    return refuse(
        fmt::format("{} has no tile operation for {}", node.op_name(), to_string(body.type(node.inputs.back()).dtype)));
  Instruction instruction{fn, {}, -1, -1, *op, in, compute_dtype(result)};
  program.work_ += info_of(*op).work;
  for (Value input : inputs) instruction.in.push_back(place[input.id]);
  if (output_of[v] >= 0 && !is_half(result)) {
    instruction.output = output_of[v];
    place[v] = {Operand::kOutput, output_of[v]};
  } else {
    instruction.reg = take_register();
    place[v] = {Operand::kRegister, instruction.reg};
  }
  // A register is free after its last reader; the reader's own result never shares it.
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Operand& operand = instruction.in[i];
    const int32_t from = source[inputs[i].id];
    bool repeated = false;
    for (size_t j = 0; j < i; ++j)
      repeated = repeated || (instruction.in[j].kind == Operand::kRegister && instruction.in[j].index == operand.index);
    if (operand.kind == Operand::kRegister && !repeated && last_use[from] == n && !kept[from])
      free_registers.push_back(operand.index);
  }
  program.instructions_.push_back(std::move(instruction));
  if (op == TileOp::kCast && is_half(result)) {  // a cast rounds; other results are rounded when they are stored
    const Instruction& last = program.instructions_.back();
    program.instructions_.push_back({tile_fn(TileOp::kRoundTo, DType::kF32, result),
                                     {place[v]},
                                     last.reg,
                                     -1,
                                     TileOp::kRoundTo,
                                     DType::kF32,
                                     result});
  }
  return {};
}

Status TileProgram::Compiler::run(int64_t max_period) {
  DS_TRY(find_dims());
  for (const Output& output : body.outputs()) {
    const DType dtype = body.type(output.value).dtype;
    program.out_sizes_.push_back(size_of(dtype));
    program.out_dtypes_.push_back(dtype);
  }
  for (size_t i = 0; i < body.inputs().size(); ++i)
    place[body.inputs()[i].value.id] = add_leaf(static_cast<int>(i), {}, body.type(body.inputs()[i].value));
  for (size_t n = 0; n < body.nodes().size(); ++n) {
    const Node& node = body.nodes()[n];
    const int32_t v = node.output().id;
    if (node.op_name() == "constant") {
      const Tensor& value = node.attrs.get<Tensor>("value");
      place[v] = add_leaf(-1, value, value.type());
    } else if (node.op_name() == "broadcast_to") {  // every operand is broadcast to the loop anyway
      place[v] = place[node.inputs[0].id];
      if (output_of[v] >= 0 && !place[v].leaf()) return refuse("an output is a broadcast intermediate");
    } else if (skipped[n]) {
      continue;
    } else if (is_sum(node)) {
      DS_TRY(sum(node));
    } else if (!node.op->traits.elementwise) {
      return refuse(node.op_name() + " in its body is not element-wise");
    } else {
      DS_TRY(instruction(node, static_cast<int32_t>(n)));
    }
  }
  program.leaf_copies_.assign(body.outputs().size(), -1);
  for (size_t o = 0; o < body.outputs().size(); ++o) {
    const Node* producer = body.producer(body.outputs()[o].value);
    if (producer != nullptr && is_sum(*producer)) continue;
    const Operand& p = place[body.outputs()[o].value.id];
    if (is_half(program.out_dtypes_[o]))
      program.narrowed_.push_back(
          {p, static_cast<int>(o), tile_fn(TileOp::kCast, DType::kF32, program.out_dtypes_[o])});
    else if (p.leaf())
      program.leaf_copies_[o] = p.index;
    else if (p.kind == Operand::kOutput && p.index != static_cast<int>(o))
      return refuse("one value is two outputs");
  }
  std::vector<Dims> shapes = leaf_dims;
  shapes.insert(shapes.end(), sum_dims.begin(), sum_dims.end());
  add_loops(shapes, max_period);
  if (purpose == Purpose::kAsk) return {};
  program.affine_ = affine();
  if (!program.affine_) program.code_ = code();
  return {};
}

void TileProgram::Compiler::add_loops(const std::vector<Dims>& shapes, int64_t max_period) {
  Dims& loops = program.loops_;
  std::vector<Leaf>& leaves = program.leaves_;
  std::vector<Dims> strides, merged(shapes.size());
  for (const Dims& shape : shapes) strides.push_back(broadcast_strides(shape, dims.size()));
  for (size_t axis = 0; axis < dims.size(); ++axis) {
    if (dims[axis] == 1) continue;
    bool joins = !loops.empty();
    for (size_t l = 0; l < strides.size() && joins; ++l) joins = merged[l].back() == strides[l][axis] * dims[axis];
    if (joins)
      loops.back() *= dims[axis];
    else
      loops.push_back(dims[axis]);
    for (size_t l = 0; l < strides.size(); ++l) {
      if (joins)
        merged[l].back() = strides[l][axis];
      else
        merged[l].push_back(strides[l][axis]);
    }
  }
  if (loops.empty()) {
    loops.push_back(1);
    for (Dims& m : merged) m.push_back(0);
  }
  // A short inner loop that some operands repeat in each step of the next one: both are one loop with a period. The
  // same where operands stay at an element through few steps; sums don't, they would be of the short loop.
  std::vector<Leaf::Walk> walks(shapes.size());
  if (const size_t last = loops.size() - 1; last > 0 && loops[last] <= max_period) {
    bool all = true;
    for (size_t l = 0; l < merged.size(); ++l) {
      const int64_t outer = merged[l][last - 1], inner = merged[l][last];
      if (outer == 0 && inner == 1) walks[l] = Leaf::kPeriodic;
      if (outer == 1 && inner == 0 && loops[last] <= kMostStays && l < leaves.size()) walks[l] = Leaf::kStays;
      all = all && (walks[l] != Leaf::kSteps || outer == inner * loops[last]);
    }
    if (all) {
      program.period_ = loops[last];
      loops[last - 1] *= program.period_;
      loops.pop_back();
      for (size_t l = 0; l < merged.size(); ++l) {
        if (walks[l] != Leaf::kStays) merged[l][last - 1] = merged[l][last];
        merged[l].pop_back();
      }
    } else {
      std::fill(walks.begin(), walks.end(), Leaf::kSteps);
    }
  }
  for (size_t l = 0; l < shapes.size(); ++l) {
    if (l < leaves.size()) {
      leaves[l].strides = merged[l];
      leaves[l].walk = walks[l];
    } else {
      Sum& sum = program.sums_[l - leaves.size()];
      sum.strides = merged[l];
      sum.periodic = walks[l] == Leaf::kPeriodic;
    }
  }
}

std::optional<TileCode> TileProgram::Compiler::code() {
  std::vector<TileCode::Leaf> leaves;
  for (const Leaf& leaf : program.leaves_) {
    const bool scalar = leaf.walk == Leaf::kSteps && leaf.strides.back() == 0 &&
                        (compute_dtype(leaf.dtype) == DType::kF32 || leaf.dtype == DType::kI32);
    const bool contiguous = leaf.plain();
    const bool vector =
        leaf.walk == Leaf::kPeriodic && leaf.dtype == DType::kF32 && program.period_ == TileCode::best_lanes();
    program.in_code_.push_back(scalar || contiguous || vector);
    leaves.push_back({contiguous ? leaf.dtype : compute_dtype(leaf.dtype), scalar, vector});
  }
  for (int copy : program.leaf_copies_)
    if (copy >= 0) return {};
  for (const Instruction& i : program.instructions_)
    if (!TileCode::has(i.op, i.in_dtype, i.out_dtype)) return {};
  std::vector<TileCode::Operation> operations;
  std::map<int, int> in_register, in_output;  // values
  const auto value = [&](const Operand& o) {
    return o.leaf() ? o.index : o.kind == Operand::kRegister ? in_register.at(o.index) : in_output.at(o.index);
  };
  for (const Instruction& i : program.instructions_) {
    TileCode::Operation operation{i.op, i.in_dtype, i.out_dtype, {}, i.output};
    for (const Operand& o : i.in) operation.operands.push_back(value(o));
    const int result = static_cast<int>(leaves.size() + operations.size());
    (i.output >= 0 ? in_output[i.output] : in_register[i.reg]) = result;
    operations.push_back(std::move(operation));
  }
  std::vector<TileCode::Store> stores;
  for (const Narrowed& o : program.narrowed_)
    stores.push_back({value(o.from), o.output, program.out_dtypes_[static_cast<size_t>(o.output)]});
  for (size_t k = 0; k < program.sums_.size(); ++k) {
    Sum& sum = program.sums_[k];
    // Tiles begin at multiples of the period, so that an element's lane says where it belongs.
    sum.in_code = sum.strides.back() == 0 || (sum.periodic && TileCode::best_lanes() % program.period_ == 0);
    stores.push_back({value(sum.from), static_cast<int>(program.out_dtypes_.size() + k), DType::kF32, sum.in_code});
  }
  return TileCode::make(leaves, operations, stores);
}

}  // namespace deepseek::backends::cpu
