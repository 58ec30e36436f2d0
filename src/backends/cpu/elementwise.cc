// Element-wise ops, composites of them, sums, and fused groups of these: one pass over memory, see tile_program.h. A
// body may hold several loops that share nothing but inputs (passes/fuse_horizontal.h); all run in one parallel region.
#include <algorithm>
#include <utility>

#include "backends/cpu/kernel.h"
#include "backends/cpu/tile_program.h"
#include "base/threads.h"
#include "graph/builder.h"
#include "ops/common.h"

namespace deepseek::backends::cpu {

using namespace graph;

namespace {

constexpr int64_t kGrain = 32768;  // cheap operations per thread below which a second thread does not pay
constexpr int64_t kMostParts = 64;

// One connected component of the body.
struct BodyLoop {
  TileProgram program;
  std::vector<int> in, out;  // operands of the node
  // Parts don't depend on the number of threads, so that sums, of which each part has its own, don't either.
  int64_t parts = 1, first_part = 0, first_sum = 0;

  int64_t num_units() const { return program.size() / program.unit(); }
  int64_t begin_of(int64_t part) const { return num_units() * part / parts * program.unit(); }
};

class ElementwiseKernel : public Kernel {
 public:
  ElementwiseKernel(std::vector<BodyLoop> loops, const NodeInfo& node) : loops_(std::move(loops)) {
    for (size_t o = 0; o < node.outputs.size(); ++o)
      if (o < node.used.size() && !node.used[o])
        unread_.emplace_back(
            o, std::exchange(unread_bytes_, unread_bytes_ + (node.outputs[o].num_bytes() + 63) / 64 * 64));
    for (BodyLoop& loop : loops_) {
      const int64_t sums = loop.program.num_sums();
      loop.parts = sums > 0 ? std::clamp<int64_t>(loop.program.size() / std::max(kGrain / 4, 16 * sums), 1, kMostParts)
                            : std::clamp<int64_t>(loop.program.size() / (kGrain / 8), 1, loop.num_units());
      loop.first_part = parts_;
      loop.first_sum = sums_;
      parts_ += loop.parts;
      sums_ += loop.parts * sums;
      operations_ += loop.program.size() * loop.program.work();
    }
  }

  Status run(const KernelArgs& given) const override {
    KernelArgs args = given;
    std::vector<void*> out;
    if (!unread_.empty()) {  // loops write all their outputs
      out.assign(given.out.begin(), given.out.end());
      for (const auto& [o, offset] : unread_)
        if (out[o] == nullptr) out[o] = static_cast<char*>(given.scratch) + sums_bytes() + offset;
      args.out = out;
    }
    auto* sums = static_cast<double*>(args.scratch);
    std::fill_n(sums, sums_, 0.0);
    const int64_t shares = std::clamp<int64_t>(operations_ / kGrain, 1, num_threads());
    parallel_for(shares, 1, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) run_share(args, s, shares, sums);
    });
    for (const BodyLoop& loop : loops_) {
      const int64_t count = loop.program.num_sums();
      if (count == 0) continue;
      double* const total = sums + loop.first_sum;
      for (int64_t p = 1; p < loop.parts; ++p)
        for (int64_t i = 0; i < count; ++i) total[i] += total[p * count + i];
      loop.program.store(total, Operands(loop, args).out);
    }
    return {};
  }

  size_t scratch_bytes() const override { return sums_bytes() + unread_bytes_; }

  bool in_place(int out, int in) const override {
    bool found = false;
    for (const BodyLoop& loop : loops_) {
      const auto i = std::find(loop.in.begin(), loop.in.end(), in);
      const auto o = std::find(loop.out.begin(), loop.out.end(), out);
      if (i == loop.in.end()) continue;
      // Another loop may read the input later.
      if (o == loop.out.end() ||
          !loop.program.in_place(static_cast<int>(o - loop.out.begin()), static_cast<int>(i - loop.in.begin())))
        return false;
      found = true;
    }
    return found;
  }

  std::string detail() const override {
    size_t instructions = 0;
    bool code = true;
    for (const BodyLoop& loop : loops_) {
      instructions += loop.program.num_instructions();
      code = code && loop.program.has_code();
    }
    return fmt::format("{}{} {}", loops_.size() == 1 ? "" : fmt::format("{} loops, ", loops_.size()), instructions,
                       code ? "ops in registers" : "tile ops");
  }

 private:
  size_t sums_bytes() const { return (static_cast<size_t>(sums_) * sizeof(double) + 63) / 64 * 64; }

  // A loop's own among the node's operands.
  struct Operands {
    Operands(const BodyLoop& loop, const KernelArgs& args) {
      for (int i : loop.in) in.push_back(args.in[static_cast<size_t>(i)]);
      for (int o : loop.out) out.push_back(args.out[static_cast<size_t>(o)]);
    }
    std::vector<const void*> in;
    std::vector<void*> out;
  };

  // Each thread gets its share of each loop: as other kernels split rows like this, it finds in its core's cache what
  // it wrote before.
  void run_share(const KernelArgs& args, int64_t share, int64_t shares, double* sums) const {
    for (const BodyLoop& loop : loops_) {
      int64_t from = share * loop.parts / shares, to = (share + 1) * loop.parts / shares;
      if (loop.parts < shares) {  // the parts of short loops go round
        from = (share + shares - loop.first_part % shares) % shares;
        to = std::min(from + 1, loop.parts);
      }
      if (from >= to) continue;
      const Operands operands(loop, args);
      if (const int64_t count = loop.program.num_sums(); count > 0) {
        for (int64_t p = from; p < to; ++p)
          loop.program.run(operands.in, operands.out, loop.begin_of(p), loop.begin_of(p + 1),
                           sums + loop.first_sum + p * count);
      } else {
        loop.program.run(operands.in, operands.out, loop.begin_of(from), loop.begin_of(to), nullptr);
      }
    }
  }

  std::vector<BodyLoop> loops_;
  int64_t parts_ = 0, sums_ = 0, operations_ = 0;
  std::vector<std::pair<size_t, size_t>> unread_;  // outputs that nobody reads, and where they are in scratch memory
  size_t unread_bytes_ = 0;
};

// For each node, the first one that it is connected with by something computed. Constants connect nothing.
std::vector<size_t> components(const Graph& body) {
  std::vector<size_t> group(body.nodes().size());
  for (size_t n = 0; n < group.size(); ++n) {
    group[n] = n;
    for (Value v : body.nodes()[n].inputs) {
      const Node* producer = body.producer(v);
      if (producer == nullptr || producer->op_name() == "constant") continue;
      const size_t other = group[static_cast<size_t>(producer - body.nodes().data())], own = group[n];
      for (size_t i = 0; i <= n && other != own; ++i)
        if (group[i] == std::max(other, own)) group[i] = std::min(other, own);
    }
  }
  return group;
}

// The part of the body that is one component, as a loop.
Result<BodyLoop> make_loop(const Graph& body, const std::vector<size_t>& group, size_t wanted, Purpose purpose) {
  Builder builder(body.registry());
  std::vector<Expr> map(static_cast<size_t>(body.num_values()));
  std::vector<int> in, out;
  const auto value = [&](Value v) -> Expr {
    Expr& known = map[static_cast<size_t>(v.id)];
    if (known.defined()) return known;
    if (const Node* constant = body.producer(v); constant != nullptr)
      return known = builder.constant(constant->attrs.get<Tensor>("value"));
    for (size_t i = 0; i < body.inputs().size(); ++i)
      if (body.inputs()[i].value == v) in.push_back(static_cast<int>(i));
    return known = builder.input(std::to_string(in.size()), body.type(v));
  };
  for (size_t n = 0; n < group.size(); ++n) {
    const Node& node = body.nodes()[n];
    if (group[n] != wanted || node.op_name() == "constant") continue;
    std::vector<Expr> inputs;
    for (Value v : node.inputs) inputs.push_back(value(v));
    const std::vector<Expr> results = builder.emit(node.op_name(), std::move(inputs), node.attrs);
    for (size_t i = 0; i < results.size(); ++i)
      map[static_cast<size_t>(node.output(static_cast<int32_t>(i)).id)] = results[i];
  }
  for (size_t o = 0; o < body.outputs().size(); ++o) {
    const Node* producer = body.producer(body.outputs()[o].value);
    if (group[static_cast<size_t>(producer - body.nodes().data())] != wanted) continue;
    builder.output(std::to_string(out.size()), map[static_cast<size_t>(body.outputs()[o].value.id)]);
    out.push_back(static_cast<int>(o));
  }
  DS_ASSIGN(const Graph part, builder.finish());
  DS_ASSIGN(TileProgram program, TileProgram::compile(part, kTile / 2, purpose));
  return BodyLoop{std::move(program), std::move(in), std::move(out)};
}

// The body as one loop, all operands being its own.
Result<BodyLoop> whole_loop(const Graph& body, Purpose purpose) {
  DS_ASSIGN(TileProgram program, TileProgram::compile(body, kTile / 2, purpose));
  BodyLoop loop{std::move(program), {}, {}};
  for (size_t i = 0; i < body.inputs().size(); ++i) loop.in.push_back(static_cast<int>(i));
  for (size_t o = 0; o < body.outputs().size(); ++o) loop.out.push_back(static_cast<int>(o));
  return loop;
}

// A sum alone that keeps its last axis adds rows to rows, which the kernel of reductions does without a copy.
bool adds_rows(const NodeInfo& node) {
  const std::string& op = node.context.op->name.value;
  if ((op != "sum" && op != "mean") || node.context.in(0).dtype != DType::kF32) return false;
  const Dims& dims = node.context.in(0).dims;
  const Result<Dims> axes = ops::normalize_axes(node.context.ints("axes"), static_cast<int64_t>(dims.size()));
  if (!axes.ok() || axes->empty()) return false;
  for (size_t axis = dims.size(); axis-- > 0;)
    if (dims[axis] > 1) return std::find(axes->begin(), axes->end(), static_cast<int64_t>(axis)) == axes->end();
  return false;
}

Result<std::vector<BodyLoop>> loops_of(const NodeInfo& node, Purpose purpose) {
  if (adds_rows(node)) return refuse("a sum of rows");
  DS_ASSIGN(const Graph body, body_of(node));
  const std::vector<size_t> group = components(body);
  std::vector<size_t> wanted;  // components that the node returns something of
  bool whole = false;
  for (const Output& output : body.outputs()) {
    const Node* producer = body.producer(output.value);
    whole = whole || producer == nullptr || producer->op_name() == "constant";  // a loop that only copies
    if (producer != nullptr) wanted.push_back(group[static_cast<size_t>(producer - body.nodes().data())]);
  }
  std::sort(wanted.begin(), wanted.end());
  wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
  std::vector<BodyLoop> loops;
  if (whole || wanted.size() < 2) {
    DS_ASSIGN(BodyLoop loop, whole_loop(body, purpose));
    loops.push_back(std::move(loop));
  } else {
    for (size_t w : wanted) {
      DS_ASSIGN(BodyLoop loop, make_loop(body, group, w, purpose));
      loops.push_back(std::move(loop));
    }
  }
  for (const BodyLoop& loop : loops)
    if (loop.program.size() == 0) return refuse("an empty result");
  return loops;
}

}  // namespace

Status takes_elementwise(const NodeInfo& node) { return loops_of(node, Purpose::kAsk).status(); }

KernelOrError make_elementwise(const NodeInfo& node) {
  DS_ASSIGN(std::vector<BodyLoop> loops, loops_of(node, Purpose::kRun));
  return std::unique_ptr<Kernel>(new ElementwiseKernel(std::move(loops), node));
}

}  // namespace deepseek::backends::cpu
