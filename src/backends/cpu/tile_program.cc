#include "backends/cpu/tile_program.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "backends/cpu/kernel.h"
#include "ops/common.h"
#include "passes/decompose.h"

namespace deepseek::backends::cpu {

using namespace graph;

namespace {

constexpr int64_t kTileBytes = kTile * 8;
constexpr size_t kMostOps = 12;  // of the vectors in an Affine

bool is_half(DType dtype) { return dtype == DType::kF16 || dtype == DType::kBF16; }
DType compute_dtype(DType dtype) { return is_half(dtype) ? DType::kF32 : dtype; }

// About how long an operation takes beside an addition.
int64_t work_of(const std::string& op) {
  for (const char* function : {"exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "erf", "pow"})
    if (op == function) return 8;
  return 1;
}

bool is_sum(const Node& node) { return node.op_name() == "sum" || node.op_name() == "mean"; }

template <class T>
void fill(void* dst, const void* src, int64_t n) {
  T value;
  std::memcpy(&value, src, sizeof(T));
  std::fill_n(static_cast<T*>(dst), n, value);
}
void splat(void* dst, const void* src, size_t size, int64_t n) {
  if (size == 1) return fill<uint8_t>(dst, src, n);
  if (size == 2) return fill<uint16_t>(dst, src, n);
  if (size == 4) return fill<uint32_t>(dst, src, n);
  fill<uint64_t>(dst, src, n);
}

// Repeats the first `period` bytes up to `bytes`.
void repeat(char* dst, size_t period, size_t bytes) {
  for (size_t done = period; done < bytes; done *= 2) std::memcpy(dst + done, dst, std::min(done, bytes - done));
}

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
  return node.op->traits.elementwise && node.num_outputs == 1 && !node.inputs.empty() &&
         find_tile_fn(node.op_name(), compute_dtype(graph.type(node.inputs.back()).dtype),
                      compute_dtype(graph.type(node.output()).dtype)) != nullptr;
}

// Axes that all operands step through alike become one loop.
// The most steps of an inner loop through which operands that stay the same are copied out, so that tiles span rows.
constexpr int64_t kMostStays = 32;

// Each of n / times elements as often as that.
template <class T>
void repeat_each(const void* from, int64_t n, int64_t times, void* to) {
  const T* in = static_cast<const T*>(from);
  T* out = static_cast<T*>(to);
  for (const T* const end = out + n; out < end; out += times) std::fill_n(out, times, *in++);
}
void repeat_each(const void* from, size_t size, int64_t n, int64_t times, void* to) {
  if (size == 1) return repeat_each<uint8_t>(from, n, times, to);
  if (size == 2) return repeat_each<uint16_t>(from, n, times, to);
  if (size == 4) return repeat_each<uint32_t>(from, n, times, to);
  repeat_each<uint64_t>(from, n, times, to);
}

void TileProgram::add_loops(const Dims& dims, const std::vector<Dims>& shapes, int64_t max_period) {
  std::vector<Dims> strides, merged(shapes.size());
  for (const Dims& shape : shapes) strides.push_back(broadcast_strides(shape, dims.size()));
  for (size_t axis = 0; axis < dims.size(); ++axis) {
    if (dims[axis] == 1) continue;
    bool joins = !loops_.empty();
    for (size_t l = 0; l < strides.size() && joins; ++l) joins = merged[l].back() == strides[l][axis] * dims[axis];
    if (joins)
      loops_.back() *= dims[axis];
    else
      loops_.push_back(dims[axis]);
    for (size_t l = 0; l < strides.size(); ++l) {
      if (joins)
        merged[l].back() = strides[l][axis];
      else
        merged[l].push_back(strides[l][axis]);
    }
  }
  if (loops_.empty()) {
    loops_.push_back(1);
    for (Dims& m : merged) m.push_back(0);
  }
  // A short inner loop that some operands repeat in each step of the next one: both are one loop with a period. The
  // same where operands stay at an element through few steps; sums don't, they would be of the short loop.
  std::vector<Leaf::Walk> walks(shapes.size());
  if (const size_t last = loops_.size() - 1; last > 0 && loops_[last] <= max_period) {
    bool all = true;
    for (size_t l = 0; l < merged.size(); ++l) {
      const int64_t outer = merged[l][last - 1], inner = merged[l][last];
      if (outer == 0 && inner == 1) walks[l] = Leaf::kPeriodic;
      if (outer == 1 && inner == 0 && loops_[last] <= kMostStays && l < leaves_.size()) walks[l] = Leaf::kStays;
      all = all && (walks[l] != Leaf::kSteps || outer == inner * loops_[last]);
    }
    if (all) {
      period_ = loops_[last];
      loops_[last - 1] *= period_;
      loops_.pop_back();
      for (size_t l = 0; l < merged.size(); ++l) {
        if (walks[l] != Leaf::kStays) merged[l][last - 1] = merged[l][last];
        merged[l].pop_back();
      }
    } else {
      std::fill(walks.begin(), walks.end(), Leaf::kSteps);
    }
  }
  for (size_t l = 0; l < shapes.size(); ++l) {
    if (l < leaves_.size()) {
      leaves_[l].strides = merged[l];
      leaves_[l].walk = walks[l];
    } else {
      Sum& sum = sums_[l - leaves_.size()];
      sum.strides = merged[l];
      sum.periodic = walks[l] == Leaf::kPeriodic;
    }
  }
}

struct TileProgram::Compiler {
  TileProgram& program;
  const Graph& body;
  Purpose purpose;
  std::vector<Operand> place;
  std::vector<Dims> leaf_dims, sum_dims;
  std::vector<int32_t> last_use, source;
  std::vector<int> output_of, free_registers;
  std::vector<bool> kept;     // read at the end of the tile
  std::vector<int> joined;    // by node: which operand is a product that is computed with it, or -1
  std::vector<bool> skipped;  // by node: a product that is computed with its reader
  Dims dims;

  Compiler(TileProgram& p, const Graph& b, Purpose why) : program(p), body(b), purpose(why) {
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

  // An f32 product that only one sum or difference reads is computed with it, in one rounding.
  void join_products() {
    const std::vector<int32_t> uses = body.use_counts();
    joined.assign(body.nodes().size(), -1);
    std::vector<bool> inside(joined.size());
    for (size_t n = 0; n < body.nodes().size(); ++n) {
      const Node& node = body.nodes()[n];
      if ((node.op_name() != "add" && node.op_name() != "sub") || body.type(node.output()).dtype != DType::kF32)
        continue;
      for (int side = 0; side < 2 && joined[n] < 0; ++side) {
        const Node* product = body.producer(node.inputs[static_cast<size_t>(side)]);
        if (product == nullptr || product->op_name() != "mul" || uses[product->output().id] != 1) continue;
        joined[n] = side;
        inside[static_cast<size_t>(product - body.nodes().data())] = true;
        for (Value v : product->inputs)
          last_use[source[v.id]] = std::max(last_use[source[v.id]], static_cast<int32_t>(n));
      }
    }
    skipped = std::move(inside);
  }

  Operand add_leaf(int input, Tensor constant, const TensorType& type) {
    const DType dtype = constant.defined() ? compute_dtype(type.dtype) : type.dtype;
    if (constant.defined() && is_half(type.dtype))
      constant = purpose == Purpose::kRun ? constant.cast(DType::kF32) : Tensor();
    program.leaves_.push_back({input, std::move(constant), dtype, {}});
    if (is_half(dtype)) program.leaves_.back().widen = find_tile_fn("cast", dtype, DType::kF32);
    leaf_dims.push_back(type.dims);
    return Operand{Operand::kLeaf, static_cast<int>(program.leaves_.size()) - 1};
  }

  int take_register() {
    if (free_registers.empty()) return program.num_registers_++;
    const int reg = free_registers.back();
    free_registers.pop_back();
    return reg;
  }

  // The iteration space: what sums sum, what other outputs are.
  Status find_dims() {
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

  Status sum(const Node& node) {
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

  Status instruction(const Node& node, int32_t n) {
    const int32_t v = node.output().id;
    const DType result = body.type({v}).dtype;
    const DType in = compute_dtype(body.type(node.inputs.back()).dtype);
    std::vector<Value> inputs = node.inputs;
    std::string op = node.op_name();
    if (const int side = joined[static_cast<size_t>(n)]; side >= 0) {
      const Node& product = *body.producer(node.inputs[static_cast<size_t>(side)]);
      op = op == "add" ? "mul_add" : side == 0 ? "mul_sub" : "neg_mul_add";
      inputs = {product.inputs[0], product.inputs[1], node.inputs[static_cast<size_t>(1 - side)]};
    }
    Instruction instruction{find_tile_fn(op, in, compute_dtype(result)), {}, -1, -1, op, in, compute_dtype(result)};
    if (instruction.fn == nullptr)
      return refuse(fmt::format("{} has no tile operation for {}", node.op_name(),
                                to_string(body.type(node.inputs.back()).dtype)));
    program.work_ += work_of(op);
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
        repeated =
            repeated || (instruction.in[j].kind == Operand::kRegister && instruction.in[j].index == operand.index);
      if (operand.kind == Operand::kRegister && !repeated && last_use[from] == n && !kept[from])
        free_registers.push_back(operand.index);
    }
    program.instructions_.push_back(std::move(instruction));
    if (node.op_name() == "cast" && is_half(result)) {  // a cast rounds; other results are rounded when they are stored
      const Instruction& last = program.instructions_.back();
      program.instructions_.push_back(
          {find_tile_fn("round_to", DType::kF32, result), {place[v]}, last.reg, -1, "round_to", DType::kF32, result});
    }
    return {};
  }

  Status run(int64_t max_period) {
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
            {p, static_cast<int>(o), find_tile_fn("cast", DType::kF32, program.out_dtypes_[o])});
      else if (p.leaf())
        program.leaf_copies_[o] = p.index;
      else if (p.kind == Operand::kOutput && p.index != static_cast<int>(o))
        return refuse("one value is two outputs");
    }
    std::vector<Dims> shapes = leaf_dims;
    shapes.insert(shapes.end(), sum_dims.begin(), sum_dims.end());
    program.add_loops(dims, shapes, max_period);
    if (purpose == Purpose::kAsk) return {};
    program.affine_ = affine();
    if (!program.affine_) program.code_ = code();
    return {};
  }

  // Leaves and instructions as machine code; sums read what it stores after the outputs.
  std::optional<TileCode> code() {
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

  // The body as an Affine, if it is one. Products come before sums: taking (x - m) * s apart would lose digits of x -
  // m.
  std::optional<Affine> affine() const {
    static constexpr int kNone = -1;
    struct Form {
      bool known = false;
      std::vector<Affine::Term> terms;
      int shift = -1;
      bool relu = false;
    };
    if (body.outputs().size() != 1 || program.out_dtypes_[0] != DType::kF32 || !program.sums_.empty()) return {};
    if (kMostWidth % program.period_ != 0 || (program.period_ % 16 != 0 && 16 % program.period_ != 0)) return {};
    Affine result;
    std::vector<Form> forms(static_cast<size_t>(body.num_values()));
    const auto op = [&](Affine::Op::Kind kind, int a, int b) {
      result.ops.push_back({kind, a, b});
      return static_cast<int>(result.ops.size()) - 1;
    };
    const auto negative = [&](Form f) {
      for (Affine::Term& t : f.terms) {
        if (t.coefficient == kNone) return Form();  // minus one would have to be made
        t.coefficient = op(Affine::Op::kNeg, t.coefficient, kNone);
      }
      if (f.shift != kNone) f.shift = op(Affine::Op::kNeg, f.shift, kNone);
      return f;
    };
    const auto leaf = [&](Value v) {
      Form f;
      const Leaf& l = program.leaves_[static_cast<size_t>(place[v.id].index)];
      if (l.dtype != DType::kF32 || l.walk == Leaf::kStays) return f;
      f.known = true;
      if (!l.plain())
        f.shift = op(Affine::Op::kLeaf, place[v.id].index, kNone);
      else
        f.terms.push_back({place[v.id].index, kNone});
      return f;
    };
    for (const Input& input : body.inputs()) forms[input.value.id] = leaf(input.value);
    for (const Node& node : body.nodes()) {
      Form& to = forms[node.output().id];
      if (node.op_name() == "constant") {
        to = leaf(node.output());
        continue;
      }
      const Form& a = forms[node.inputs[0].id];
      const Form& b = forms[node.inputs.back().id];
      if (!a.known || !b.known || body.type(node.output()).dtype != DType::kF32) return {};
      if (node.op_name() == "broadcast_to") {
        to = a;
      } else if (a.relu || b.relu) {
        return {};
      } else if (node.op_name() == "relu") {
        to = a;
        to.relu = true;
      } else if (node.op_name() == "add" || node.op_name() == "sub") {
        const Form c = node.op_name() == "sub" ? negative(b) : b;
        if (!c.known) return {};
        to = a;
        to.terms.insert(to.terms.end(), c.terms.begin(), c.terms.end());
        if (c.shift != kNone) to.shift = a.shift == kNone ? c.shift : op(Affine::Op::kAdd, a.shift, c.shift);
      } else if (node.op_name() == "mul") {
        const Form &vector = a.terms.empty() ? a : b, &other = a.terms.empty() ? b : a;
        if (!vector.terms.empty() || (!other.terms.empty() && other.shift != kNone) || other.terms.size() > 1)
          return {};
        to = other;
        for (Affine::Term& t : to.terms)
          t.coefficient = t.coefficient == kNone ? vector.shift : op(Affine::Op::kMul, t.coefficient, vector.shift);
        if (to.shift != kNone) to.shift = op(Affine::Op::kMul, other.shift, vector.shift);
      } else {
        return {};
      }
    }
    const Form& y = forms[body.outputs()[0].value.id];
    if (!y.known || y.terms.empty() || y.terms.size() > kMostTerms || result.ops.size() > kMostOps) return {};
    result.terms = y.terms;
    result.shift = y.shift;
    result.relu = y.relu;
    return result;
  }
};

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

bool TileProgram::in_place(int out, int in) const {
  int written = -1;
  for (size_t i = 0; i < instructions_.size(); ++i)
    if (instructions_[i].output == out) written = static_cast<int>(i);
  // Half outputs are stored when the whole tile of every half input has been widened; other operands may not be there.
  if (is_half(out_dtypes_[out])) written = static_cast<int>(instructions_.size());
  if (written < 0) return false;
  for (size_t l = 0; l < leaves_.size(); ++l) {
    if (leaves_[l].input != in) continue;
    int64_t step = 1;
    for (size_t i = loops_.size(); i-- > 0; step *= loops_[i])
      if (leaves_[l].strides[i] != step && loops_[i] != 1) return false;
    if (leaves_[l].walk != Leaf::kSteps || size_of(leaves_[l].dtype) != out_sizes_[out]) return false;
    const auto reads = [&](const Operand& o) { return o.leaf() && o.index == static_cast<int>(l); };
    for (size_t i = written + 1; i < instructions_.size(); ++i)
      if (std::any_of(instructions_[i].in.begin(), instructions_[i].in.end(), reads)) return false;
    for (const Sum& sum : sums_)
      if (reads(sum.from)) return false;
    for (int copy : leaf_copies_)
      if (copy == static_cast<int>(l)) return false;
    for (const Narrowed& other : narrowed_)  // stored one after another
      if (reads(other.from) && other.output != out) return false;
  }
  return true;
}

// The operand's tile of n elements from `base` on, made in `buffer` where memory does not hold it as it is. `same`:
// the buffer was filled from this base before.
const void* TileProgram::load(const Leaf& leaf, const void* base, char* buffer, bool same, int64_t n) const {
  const void* from[] = {base};
  if (leaf.plain()) {
    if (leaf.widen == nullptr) return base;
    leaf.widen(from, buffer, n);
    return buffer;
  }
  const size_t size = leaf.widen != nullptr ? sizeof(float) : size_of(leaf.dtype);
  if (leaf.walk == Leaf::kStays) {
    float wide[kTile];
    if (leaf.widen != nullptr) leaf.widen(from, wide, n / period_);
    repeat_each(leaf.widen != nullptr ? wide : base, size, n, period_, buffer);
    return buffer;
  }
  if (same) return buffer;
  const int64_t length = std::min(kTile, loops_.back());
  if (leaf.walk == Leaf::kPeriodic) {
    if (leaf.widen != nullptr)
      leaf.widen(from, buffer, period_);
    else
      std::memcpy(buffer, base, static_cast<size_t>(period_) * size);
    repeat(buffer, static_cast<size_t>(period_) * size, static_cast<size_t>(length) * size);
    return buffer;
  }
  float wide;
  if (leaf.widen != nullptr) leaf.widen(from, &wide, 1);
  splat(buffer, leaf.widen != nullptr ? &wide : base, size, length);
  return buffer;
}

void TileProgram::run_affine(std::span<const void* const> in, std::span<void* const> out, int64_t begin,
                             int64_t end) const {
  const int64_t inner = loops_.back(), width = std::max<int64_t>(16, period_);
  float values[kMostOps][kMostWidth], one[kMostWidth], zero[kMostWidth] = {};
  std::fill_n(one, kMostWidth, 1.0f);
  const float* coefficients[kMostTerms];
  for (size_t t = 0; t < affine_->terms.size(); ++t) {
    const int op = affine_->terms[t].coefficient;
    coefficients[t] = op < 0 ? one : values[op];
  }
  for (int64_t at = begin; at < end;) {
    const int64_t row = at / inner, column = at % inner, n = std::min(inner - column, end - at);
    const auto base = [&](int l) {
      const Leaf& leaf = leaves_[static_cast<size_t>(l)];
      int64_t offset = 0, rest = row;
      for (size_t d = loops_.size() - 1; d-- > 0; rest /= loops_[d]) offset += rest % loops_[d] * leaf.strides[d];
      return static_cast<const float*>(leaf.input >= 0 ? in[leaf.input] : leaf.constant.data()) + offset;
    };
    for (size_t i = 0; i < affine_->ops.size(); ++i) {
      const Affine::Op& op = affine_->ops[i];
      float* const to = values[i];
      if (op.kind == Affine::Op::kLeaf) {
        const float* const from = base(op.a);
        const bool periodic = leaves_[static_cast<size_t>(op.a)].walk == Leaf::kPeriodic;
        for (int64_t k = 0; k < width; ++k) to[k] = from[periodic ? k % period_ : 0];
        continue;
      }
      const float *a = values[op.a], *b = values[op.b < 0 ? op.a : op.b];
      for (int64_t k = 0; k < width; ++k)
        to[k] = op.kind == Affine::Op::kAdd   ? a[k] + b[k]
                : op.kind == Affine::Op::kSub ? a[k] - b[k]
                : op.kind == Affine::Op::kMul ? a[k] * b[k]
                                              : -a[k];
    }
    const float* x[kMostTerms];
    for (size_t t = 0; t < affine_->terms.size(); ++t) x[t] = base(affine_->terms[t].leaf) + column;
    // Where a period is several vectors, each of them goes over the tile while it is in cache.
    for (int64_t done = 0; done < n; done += kTile) {
      const float* part[kMostTerms];
      for (size_t t = 0; t < affine_->terms.size(); ++t) part[t] = x[t] + done;
      affine_tile(static_cast<int>(affine_->terms.size()), part, coefficients,
                  affine_->shift < 0 ? zero : values[affine_->shift], affine_->relu, width,
                  static_cast<float*>(out[0]) + at + done, std::min(kTile, n - done));
    }
    at += n;
  }
}

template <class F>
void TileProgram::walk(int64_t begin, int64_t end, int64_t longest, F f) const {
  thread_local std::vector<int64_t> offsets;  // of leaves, then of sums
  offsets.resize(leaves_.size() + sums_.size());
  const int64_t inner = loops_.back();
  int64_t row = begin / inner, column = begin % inner;
  const auto enter_row = [&] {
    std::fill(offsets.begin(), offsets.end(), 0);
    int64_t rest = row;
    for (size_t d = loops_.size() - 1; d-- > 0; rest /= loops_[d]) {
      const int64_t index = rest % loops_[d];
      for (size_t l = 0; l < leaves_.size(); ++l) offsets[l] += index * leaves_[l].strides[d];
      for (size_t k = 0; k < sums_.size(); ++k) offsets[leaves_.size() + k] += index * sums_[k].strides[d];
    }
  };
  enter_row();
  for (int64_t at = begin; at < end;) {
    if (column == inner) {
      column = 0;
      ++row;
      enter_row();
    }
    const int64_t n = std::min({longest, inner - column, end - at});
    f(offsets.data(), at, column, n);
    at += n;
    column += n;
  }
}

const char* TileProgram::address(const Leaf& leaf, std::span<const void* const> in, int64_t offset,
                                 int64_t column) const {
  const void* const base = leaf.input >= 0 ? in[static_cast<size_t>(leaf.input)] : leaf.constant.data();
  const int64_t steps = leaf.walk == Leaf::kPeriodic ? 0 : leaf.walk == Leaf::kStays ? column / period_ : column;
  return static_cast<const char*>(base) +
         (offset + steps * leaf.strides.back()) * static_cast<int64_t>(size_of(leaf.dtype));
}

void TileProgram::add_sums(size_t k, const float* x, int64_t offset, int64_t column, int64_t n, bool by_lanes,
                           double* sums) const {
  const Sum& sum = sums_[k];
  double* to = sums + sum.offset + offset + (sum.periodic ? 0 : column * sum.strides.back());
  if (by_lanes)
    for (int64_t i = 0; i < code_->lanes(); ++i) to[sum.periodic ? i % period_ : 0] += static_cast<double>(x[i]);
  else if (sum.strides.back() == 0)
    *to += sum_tile(x, n);
  else
    add_rows(x, n, sum.periodic ? period_ : n, to);
}

bool TileProgram::run_code(std::span<const void* const> in_memory, std::span<void* const> out_memory, int64_t begin,
                           int64_t end, double* sums) const {
  for (const Instruction& i : instructions_)
    if (i.output >= 0 && out_memory[static_cast<size_t>(i.output)] == nullptr) return false;
  for (const Narrowed& o : narrowed_)
    if (out_memory[static_cast<size_t>(o.output)] == nullptr) return false;
  // A buffer per leaf, then one per sum.
  thread_local std::vector<uint64_t> storage;
  thread_local std::vector<float> numbers;
  thread_local std::vector<const void*> made, operand;
  thread_local std::vector<void*> results;
  const size_t buffers = leaves_.size() + sums_.size(), outputs = out_dtypes_.size();
  const bool tiles = std::find(in_code_.begin(), in_code_.end(), false) != in_code_.end() ||
                     std::any_of(sums_.begin(), sums_.end(), [](const Sum& sum) { return !sum.in_code; });
  // A lane's sum, of so many numbers in f32, goes on in double.
  const int64_t summed = 128 * code_->lanes();
  const int64_t longest = tiles ? kTile : !sums_.empty() ? summed : (end - begin + period_ - 1) / period_ * period_;
  if (storage.size() < buffers * kTile) storage.resize(buffers * kTile);
  char* const memory = reinterpret_cast<char*>(storage.data());
  made.assign(leaves_.size(), nullptr);
  operand.resize(leaves_.size());
  numbers.resize(leaves_.size());
  results.resize(outputs + sums_.size());
  for (size_t k = 0; k < sums_.size(); ++k)
    results[outputs + k] = memory + (leaves_.size() + k) * static_cast<size_t>(kTileBytes);
  walk(begin, end, longest / period_ * period_, [&](const int64_t* offsets, int64_t at, int64_t column, int64_t n) {
    for (size_t l = 0; l < leaves_.size(); ++l) {
      const Leaf& leaf = leaves_[l];
      const char* const base = address(leaf, in_memory, offsets[l], column);
      if (!in_code_[l]) {
        operand[l] = load(leaf, base, memory + l * static_cast<size_t>(kTileBytes), made[l] == base, n);
        made[l] = base;
      } else if (leaf.widen != nullptr && leaf.strides.back() == 0) {
        const void* from[] = {base};
        leaf.widen(from, &numbers[l], 1);
        operand[l] = &numbers[l];
      } else {
        operand[l] = base;
      }
    }
    for (size_t o = 0; o < outputs; ++o)
      if (out_memory[o] != nullptr)  // sums go elsewhere
        results[o] = static_cast<char*>(out_memory[o]) + at * static_cast<int64_t>(out_sizes_[o]);
    code_->run(operand.data(), results.data(), n);
    for (size_t k = 0; k < sums_.size(); ++k)
      add_sums(k, static_cast<const float*>(results[outputs + k]), offsets[leaves_.size() + k], column, n,
               sums_[k].in_code, sums);
  });
  return true;
}

void TileProgram::run(std::span<const void* const> in_memory, std::span<void* const> out_memory, int64_t begin,
                      int64_t end, double* sums) const {
  if (affine_) return run_affine(in_memory, out_memory, begin, end);
  if (code_ && run_code(in_memory, out_memory, begin, end, sums)) return;
  // Registers, then one buffer per leaf.
  thread_local std::vector<uint64_t> storage;
  thread_local std::vector<const void*> made, operand;
  const size_t buffers = static_cast<size_t>(num_registers_) + leaves_.size();
  if (storage.size() < buffers * kTile) storage.resize(buffers * kTile);
  made.assign(leaves_.size(), nullptr);
  operand.resize(leaves_.size());
  char* const registers = reinterpret_cast<char*>(storage.data());
  walk(begin, end, kTile / period_ * period_, [&](const int64_t* offsets, int64_t at, int64_t column, int64_t n) {
    for (size_t l = 0; l < leaves_.size(); ++l) {
      const char* const base = address(leaves_[l], in_memory, offsets[l], column);
      char* buffer = registers + (num_registers_ + static_cast<int64_t>(l)) * kTileBytes;
      operand[l] = load(leaves_[l], base, buffer, made[l] == base, n);
      made[l] = base;
    }
    const auto place = [&](const Operand& o) -> const void* {
      if (o.kind == Operand::kLeaf) return operand[o.index];
      if (o.kind == Operand::kRegister) return registers + o.index * kTileBytes;
      return static_cast<const char*>(out_memory[o.index]) + at * static_cast<int64_t>(out_sizes_[o.index]);
    };
    for (const Instruction& instruction : instructions_) {
      const void* in[4];
      for (size_t i = 0; i < instruction.in.size(); ++i) in[i] = place(instruction.in[i]);
      void* out = registers + instruction.reg * kTileBytes;
      if (instruction.output >= 0)
        out = static_cast<char*>(out_memory[instruction.output]) +
              at * static_cast<int64_t>(out_sizes_[instruction.output]);
      instruction.fn(in, out, n);
    }
    for (size_t k = 0; k < sums_.size(); ++k)
      add_sums(k, static_cast<const float*>(place(sums_[k].from)), offsets[leaves_.size() + k], column, n, false, sums);
    for (size_t o = 0; o < leaf_copies_.size(); ++o)
      if (leaf_copies_[o] >= 0 && out_memory[o] != nullptr)
        std::memcpy(static_cast<char*>(out_memory[o]) + at * static_cast<int64_t>(out_sizes_[o]),
                    operand[leaf_copies_[o]], static_cast<size_t>(n) * out_sizes_[o]);
    for (const Narrowed& o : narrowed_) {
      const void* in[] = {place(o.from)};
      if (out_memory[o.output] != nullptr)
        o.fn(in, static_cast<char*>(out_memory[o.output]) + at * static_cast<int64_t>(out_sizes_[o.output]), n);
    }
  });
}

void TileProgram::store(const double* sums, std::span<void* const> out) const {
  for (const Sum& sum : sums_) {
    const DType dtype = out_dtypes_[static_cast<size_t>(sum.output)];
    void* const to = out[static_cast<size_t>(sum.output)];
    for (int64_t i = 0; i < sum.size; ++i) {
      const double value = sums[sum.offset + i] * sum.scale;
      if (dtype == DType::kF32)
        static_cast<float*>(to)[i] = static_cast<float>(value);
      else
        store_from_double(dtype, to, i, value);
    }
  }
}

}  // namespace deepseek::backends::cpu
