// Element-wise ops, composites of them and fused groups: one pass over memory. The body compiles to a short list of
// tile operations; each thread walks its part of the iteration space tile by tile, intermediates stay in cache.
// Half floats are f32 between memory and memory: widened as a tile is read, rounded where a cast says so and at the
// end.
#include <algorithm>
#include <cstring>

#include "backends/cpu/kernel.h"
#include "backends/cpu/tile_ops.h"
#include "base/threads.h"
#include "graph/builder.h"
#include "ops/registry.h"
#include "passes/decompose.h"

namespace deepseek::backends::cpu {

using namespace graph;

namespace {

bool is_half(DType dtype) { return dtype == DType::kF16 || dtype == DType::kBF16; }
DType compute_dtype(DType dtype) { return is_half(dtype) ? DType::kF32 : dtype; }

struct Leaf {      // an operand in memory: input of the node, or constant of the body
  int input = -1;  // -1: constant
  Tensor constant;
  DType dtype;
  Dims strides;            // in elements, by loop dim; the inner one is 0 or 1
  TileFn widen = nullptr;  // half floats: to f32
};
struct Operand {
  enum Kind { kLeaf, kRegister, kOutput } kind = kLeaf;  // kOutput: a result that later instructions read back
  int index = 0;
  bool leaf() const { return kind == kLeaf; }
};
struct Instruction {
  TileFn fn;
  std::vector<Operand> in;
  int reg;  // where the result goes, unless output >= 0
  int output = -1;
};
struct Narrowed {  // a half float output: the f32 result goes there at the end of a tile
  Operand from;
  int output;
  TileFn fn;
};

class ElementwiseKernel : public Kernel {
 public:
  Status compile(const Graph& body, const std::vector<TensorType>& outputs);
  Status run(const KernelArgs& args) const override;
  bool in_place(int out, int in) const override;
  std::string detail() const override { return fmt::format("{} tile ops", instructions_.size()); }

 private:
  Status add_loops(const Dims& dims, const std::vector<Dims>& leaf_dims);
  void run_range(const KernelArgs& args, int64_t begin, int64_t end) const;

  std::vector<Leaf> leaves_;
  std::vector<Instruction> instructions_;
  Dims loops_;                     // merged iteration dims; the last is the inner one
  std::vector<size_t> out_sizes_;  // element sizes of outputs
  std::vector<DType> out_dtypes_;
  std::vector<int> leaf_copies_;  // output -> leaf where an output is just a (broadcast) input
  std::vector<Narrowed> narrowed_;
  int num_registers_ = 0;
};

// Axes that all operands step through alike become one loop.
Status ElementwiseKernel::add_loops(const Dims& dims, const std::vector<Dims>& leaf_dims) {
  std::vector<Dims> strides;
  for (const Dims& d : leaf_dims) {
    Dims s(dims.size());
    int64_t step = 1;
    for (size_t i = 0; i < d.size(); ++i) {
      const size_t axis = d.size() - 1 - i;
      if (d[axis] != 1) s[dims.size() - 1 - i] = step;
      step *= d[axis];
    }
    strides.push_back(std::move(s));
  }
  std::vector<Dims> merged(leaf_dims.size());
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
  for (size_t l = 0; l < leaves_.size(); ++l) leaves_[l].strides = merged[l];
  return {};
}

Status ElementwiseKernel::compile(const Graph& body, const std::vector<TensorType>& outputs) {
  const Dims& dims = outputs[0].dims;
  for (const TensorType& t : outputs) {
    if (t.dims != dims) return refuse("outputs of different shapes");
    out_sizes_.push_back(size_of(t.dtype));
    out_dtypes_.push_back(t.dtype);
  }
  std::vector<Operand> place(static_cast<size_t>(body.num_values()));
  std::vector<Dims> leaf_dims;
  const auto add_leaf = [&](int input, Tensor constant, const TensorType& type) {
    if (constant.defined() && is_half(type.dtype)) constant = constant.cast(DType::kF32);
    const DType dtype = constant.defined() ? constant.dtype() : type.dtype;
    leaves_.push_back({input, std::move(constant), dtype, {}});
    if (is_half(dtype)) leaves_.back().widen = find_tile_fn("cast", dtype, DType::kF32);
    leaf_dims.push_back(type.dims);
    return Operand{Operand::kLeaf, static_cast<int>(leaves_.size()) - 1};
  };
  for (size_t i = 0; i < body.inputs().size(); ++i)
    place[body.inputs()[i].value.id] = add_leaf(static_cast<int>(i), {}, body.type(body.inputs()[i].value));
  std::vector<int32_t> last_use(place.size(), -1);
  // A broadcast is its source under another shape: both share a place and a lifetime.
  std::vector<int32_t> source(place.size());
  for (size_t v = 0; v < source.size(); ++v) source[v] = static_cast<int32_t>(v);
  for (size_t n = 0; n < body.nodes().size(); ++n) {
    const Node& node = body.nodes()[n];
    if (node.op_name() == "broadcast_to") source[node.output().id] = source[node.inputs[0].id];
    for (Value v : node.inputs) last_use[source[v.id]] = static_cast<int32_t>(n);
  }
  std::vector<int> output_of(place.size(), -1);
  std::vector<bool> kept(place.size());  // read at the end of the tile
  for (size_t o = 0; o < body.outputs().size(); ++o) {
    const int32_t v = body.outputs()[o].value.id;
    output_of[v] = static_cast<int>(o);
    kept[source[v]] = true;
  }

  leaf_copies_.assign(outputs.size(), -1);
  std::vector<int> free_registers;
  const auto take_register = [&] {
    if (free_registers.empty()) return num_registers_++;
    const int reg = free_registers.back();
    free_registers.pop_back();
    return reg;
  };
  for (size_t n = 0; n < body.nodes().size(); ++n) {
    const Node& node = body.nodes()[n];
    const int32_t v = node.output().id;
    if (node.op_name() == "constant") {
      const Tensor& value = node.attrs.get<Tensor>("value");
      place[v] = add_leaf(-1, value, value.type());
      continue;
    }
    if (node.op_name() == "broadcast_to") {  // every operand is broadcast to the loop anyway
      place[v] = place[node.inputs[0].id];
      if (output_of[v] >= 0 && !place[v].leaf()) return refuse("an output is a broadcast intermediate");
      continue;
    }
    const DType result = body.type({v}).dtype;
    Instruction instruction{
        find_tile_fn(node.op_name(), compute_dtype(body.type(node.inputs.back()).dtype), compute_dtype(result)),
        {},
        -1};
    if (instruction.fn == nullptr)
      return refuse(fmt::format("{} has no tile operation for {}", node.op_name(),
                                to_string(body.type(node.inputs.back()).dtype)));
    for (Value in : node.inputs) instruction.in.push_back(place[in.id]);
    if (output_of[v] >= 0 && !is_half(result)) {
      instruction.output = output_of[v];
      place[v] = {Operand::kOutput, output_of[v]};
    } else {
      instruction.reg = take_register();
      place[v] = {Operand::kRegister, instruction.reg};
    }
    // A register is free after its last reader; the reader's own result never shares it.
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const Operand& operand = instruction.in[i];
      bool repeated = false;
      for (size_t j = 0; j < i; ++j)
        repeated =
            repeated || (instruction.in[j].kind == Operand::kRegister && instruction.in[j].index == operand.index);
      if (operand.kind == Operand::kRegister && !repeated &&
          last_use[source[node.inputs[i].id]] == static_cast<int32_t>(n) && !kept[source[node.inputs[i].id]])
        free_registers.push_back(operand.index);
    }
    instructions_.push_back(std::move(instruction));
    if (node.op_name() == "cast" && is_half(result)) {  // a cast rounds; other results are rounded when they are stored
      const Instruction& last = instructions_.back();
      instructions_.push_back({find_tile_fn("round_to", DType::kF32, result), {place[v]}, last.reg});
    }
  }
  for (size_t o = 0; o < body.outputs().size(); ++o)
    if (const Operand& p = place[body.outputs()[o].value.id]; is_half(out_dtypes_[o])) {
      narrowed_.push_back({p, static_cast<int>(o), find_tile_fn("cast", DType::kF32, out_dtypes_[o])});
    } else if (p.leaf()) {
      bool computed = false;
      for (const Instruction& i : instructions_) computed = computed || i.output == static_cast<int>(o);
      if (!computed) leaf_copies_[o] = p.index;
    }
  return add_loops(dims, leaf_dims);
}

bool ElementwiseKernel::in_place(int out, int in) const {
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
    if (size_of(leaves_[l].dtype) != out_sizes_[out]) return false;
    for (size_t i = written + 1; i < instructions_.size(); ++i)
      for (const Operand& o : instructions_[i].in)
        if (o.leaf() && o.index == static_cast<int>(l)) return false;
    for (int copy : leaf_copies_)
      if (copy == static_cast<int>(l)) return false;
  }
  return true;
}

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

void ElementwiseKernel::run_range(const KernelArgs& args, int64_t begin, int64_t end) const {
  constexpr int64_t kTileBytes = kTile * 8;
  // Registers, then one splat buffer per leaf.
  thread_local std::vector<uint64_t> storage;
  const size_t buffers = static_cast<size_t>(num_registers_) + leaves_.size();
  storage.resize(std::max(storage.size(), buffers * kTile));
  char* const registers = reinterpret_cast<char*>(storage.data());
  std::vector<const char*> splatted(leaves_.size()), operand(leaves_.size());
  const int64_t inner = loops_.back();
  for (int64_t at = begin; at < end;) {
    const int64_t column = at % inner;
    const int64_t n = std::min({kTile, inner - column, end - at});
    for (size_t l = 0; l < leaves_.size(); ++l) {
      const Leaf& leaf = leaves_[l];
      int64_t rest = at / inner, offset = column * leaf.strides.back();
      for (size_t d = loops_.size() - 1; d-- > 0; rest /= loops_[d]) offset += rest % loops_[d] * leaf.strides[d];
      const size_t size = size_of(leaf.dtype);
      const char* base = static_cast<const char*>(leaf.input >= 0 ? args.in[leaf.input] : leaf.constant.data()) +
                         offset * static_cast<int64_t>(size);
      char* buffer = registers + (num_registers_ + static_cast<int64_t>(l)) * kTileBytes;
      if (leaf.strides.back() != 0) {
        operand[l] = leaf.widen != nullptr ? buffer : base;
        const void* in[] = {base};
        if (leaf.widen != nullptr) leaf.widen(in, buffer, n);
        continue;
      }
      if (splatted[l] != base && leaf.widen != nullptr) {
        float value;
        const void* in[] = {base};
        leaf.widen(in, &value, 1);
        splat(buffer, &value, sizeof(value), std::min(kTile, inner));
      } else if (splatted[l] != base) {
        splat(buffer, base, size, std::min(kTile, inner));
      }
      splatted[l] = base;
      operand[l] = buffer;
    }
    for (const Instruction& instruction : instructions_) {
      const void* in[4];
      for (size_t i = 0; i < instruction.in.size(); ++i) {
        const Operand& o = instruction.in[i];
        in[i] = o.kind == Operand::kLeaf ? operand[o.index]
                : o.kind == Operand::kRegister
                    ? registers + o.index * kTileBytes
                    : static_cast<char*>(args.out[o.index]) + at * static_cast<int64_t>(out_sizes_[o.index]);
      }
      void* out = registers + instruction.reg * kTileBytes;
      if (instruction.output >= 0) {
        out = static_cast<char*>(args.out[instruction.output]) +
              at * static_cast<int64_t>(out_sizes_[instruction.output]);
      }
      instruction.fn(in, out, n);
    }
    for (size_t o = 0; o < leaf_copies_.size(); ++o)
      if (leaf_copies_[o] >= 0 && args.out[o] != nullptr)
        std::memcpy(static_cast<char*>(args.out[o]) + at * static_cast<int64_t>(out_sizes_[o]),
                    operand[leaf_copies_[o]], static_cast<size_t>(n) * out_sizes_[o]);
    for (const Narrowed& o : narrowed_) {
      const void* in[] = {o.from.leaf() ? operand[o.from.index] : registers + o.from.index * kTileBytes};
      if (args.out[o.output] != nullptr)
        o.fn(in, static_cast<char*>(args.out[o.output]) + at * static_cast<int64_t>(out_sizes_[o.output]), n);
    }
    at += n;
  }
}

Status ElementwiseKernel::run(const KernelArgs& args) const {
  constexpr int64_t kGrain = 32768;  // elements per thread below which a second thread does not pay
  parallel_for(product(loops_), kGrain, [&](int64_t begin, int64_t end) { run_range(args, begin, end); });
  return {};
}

}  // namespace

KernelOrRefusal make_elementwise(const NodeInfo& node) {
  const OpRegistry& registry = ops::registry();
  Graph body;
  if (node.context.op->name.value == "fused") {
    body = *node.context.attrs->get<GraphRef>("body");
  } else {
    Builder builder(registry);
    std::vector<Expr> inputs;
    for (size_t i = 0; i < node.context.num_inputs(); ++i)
      inputs.push_back(builder.input(std::to_string(i), node.context.in(i)));
    const std::vector<Expr> outputs = builder.emit(node.context.op->name.value, inputs, *node.context.attrs);
    for (size_t i = 0; i < outputs.size(); ++i) builder.output(std::to_string(i), outputs[i]);
    DS_ASSIGN(body, builder.finish());
  }
  DS_ASSIGN(body, passes::decompose(body, registry, [](const Graph&, const Node&) { return true; }));
  for (const Node& n : body.nodes())
    if (!n.op->traits.elementwise && n.op_name() != "constant")
      return refuse(n.op_name() + " in its body is not element-wise");
  auto kernel = std::make_unique<ElementwiseKernel>();
  DS_TRY(kernel->compile(body, node.outputs));
  return std::unique_ptr<Kernel>(std::move(kernel));
}

}  // namespace deepseek::backends::cpu
