// One OpDef is the sole record of an op: name, documentation, operands, attributes, type inference, gradient, meaning
// (reference kernel or decomposition), traits, samples. Everything else (Python functions, docs/ops.md, tests,
// benchmarks, fusibility) walks the registry. `Required` members have no default, so an op without them does not
// compile. Test: tests/ops/samples_test.cc walks every op.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graph/attrs.h"
#include "graph/tensor_type.h"

namespace deepseek::graph {

class Builder;
class Expr;
class Graph;
class OpRegistry;
struct OpDef;

// A value of the reference semantics: any element type widened to double (exact for all but i64 beyond 2^53).
struct RefTensor {
  Dims dims;
  std::vector<double> data;
  DType dtype = DType::kF32;
  RefTensor() = default;
  explicit RefTensor(const TensorType& t) : dims(t.dims), data(static_cast<size_t>(t.num_elements())), dtype(t.dtype) {}
};

// What inference, kernels and gradients see of a node.
struct OpContext {
  const OpDef* op = nullptr;
  std::vector<TensorType> inputs;  // an absent optional input has no entry beyond the last given one
  const Attrs* attrs = nullptr;

  size_t num_inputs() const { return inputs.size(); }
  const TensorType& in(size_t i) const { return inputs[i]; }
  bool flag(std::string_view n) const { return attrs->flag(n); }
  int64_t integer(std::string_view n) const { return attrs->integer(n); }
  double number(std::string_view n) const { return attrs->number(n); }
  const std::string& text(std::string_view n) const { return attrs->text(n); }
  const std::vector<int64_t>& ints(std::string_view n) const { return attrs->ints(n); }
};

// Inputs, outputs and output gradients of one node inside the graph that autodiff is building.
struct GradContext {
  Builder& builder;
  const OpContext& node;
  std::vector<Expr> inputs;
  std::vector<Expr> outputs;
  std::vector<Expr> output_grads;  // !defined() where nothing flows back
  std::vector<bool> needs;         // which inputs' gradients are wanted
  // For ops with a body: a graph from (the body's inputs, the values of its last `saved` outputs, one gradient per
  // other float output) to one gradient per float input of the body, in order.
  std::function<Result<Graph>(const Graph& body, size_t saved)> differentiate_body;
};

// A node that is about to be differentiated.
struct ExtendContext {
  Builder& builder;
  const OpContext& node;
  std::span<const Expr> inputs;
  // The body with further outputs: what its derivative reads and had better not compute again.
  std::function<Result<Graph>(const Graph& body)> extend_body;
};

template <class T>
struct Required {  // no default constructor: the member must be named
  template <class U>
  Required(U&& value) : value(std::forward<U>(value)) {}
  T value;
};

using TypesOrError = Result<std::vector<TensorType>>;
using InferFn = std::function<TypesOrError(const OpContext&)>;
// Returns one gradient per input (undefined Expr = none).
using GradientFn = std::function<std::vector<Expr>(GradContext&)>;
// Emits a node in the place of this one that also returns what its gradient needs. Returns what takes the place of the
// node's outputs; nothing leaves the node as it is.
using ExtendFn = std::function<std::vector<Expr>(ExtendContext&)>;
using DecomposeFn = std::function<std::vector<Expr>(Builder&, const OpContext&, std::span<const Expr> inputs)>;
using ReferenceFn = std::function<Status(const OpContext&, std::span<const RefTensor> in, std::span<RefTensor> out)>;

// How gradients of the op come about.
class Gradient {
 public:
  static Gradient rule(GradientFn fn, ExtendFn extend = {}) { return Gradient(std::move(fn), {}, std::move(extend)); }
  static Gradient by_decomposition() { return Gradient({}, {}); }
  static Gradient non_differentiable(std::string reason) { return Gradient({}, std::move(reason)); }
  const GradientFn& fn() const { return fn_; }
  const ExtendFn& extend() const { return extend_; }
  bool differentiable() const { return reason_.empty(); }
  const std::string& reason() const { return reason_; }

 private:
  Gradient(GradientFn fn, std::string reason, ExtendFn extend = {})
      : fn_(std::move(fn)), reason_(std::move(reason)), extend_(std::move(extend)) {}
  GradientFn fn_;
  std::string reason_;
  ExtendFn extend_;
};

// What the op means: a kernel on RefTensors, or (empty) its decomposition.
class Reference {
 public:
  static Reference kernel(ReferenceFn fn) { return Reference(std::move(fn)); }
  static Reference by_decomposition() { return Reference({}); }
  const ReferenceFn& fn() const { return fn_; }

 private:
  explicit Reference(ReferenceFn fn) : fn_(std::move(fn)) {}
  ReferenceFn fn_;
};

// The work of one node, as profiles count it.
struct Cost {
  double flops = 0;  // additions, multiplications and functions of floats or integers, each as one
  double bytes = 0;  // of the distinct values read and written
};
// Gets the default of runtime/cost.h and changes what is otherwise.
using CostFn = std::function<void(const OpContext&, std::span<const TensorType> outputs, Cost&)>;

// Output 0 once more, where inputs and other outputs (statistics, say) are at hand: less work than the whole node.
struct Rematerialize {
  std::vector<int32_t> inputs, outputs;  // which are read
  // Entries of what is not read may be undefined.
  std::function<Expr(const OpContext&, std::span<const Expr> inputs, std::span<const Expr> outputs)> fn;
};

struct OperandSpec {
  std::string name;
  std::string doc;
  bool optional = false;  // only at the end of the list
  bool variadic = false;  // only the last
};

struct AttrSpec {
  std::string name;
  AttrKind kind;
  std::optional<AttrValue> default_value;  // none: the caller must give it
  std::string doc;
};

enum class Fill { kNormal, kUniform01, kPositive, kIndices, kBool, kProbabilities };

struct SampleInput {
  TensorType type;
  Fill fill = Fill::kNormal;
  int64_t limit = 2;  // kIndices: values in [0, limit)
};

// One call of the op on seeded data: it is the test case and the benchmark case.
struct Sample {
  std::string name;
  std::vector<SampleInput> inputs;
  Attrs attrs;
  bool check_gradient = true;  // false where the function has a kink that the data may hit
  double tolerance = 2e-5;     // f32, relative to max(1, |expected|)
};

struct Traits {
  bool elementwise = false;  // out[i] depends on in[i] only (with broadcasting): fusible, layout-agnostic
  bool commutative = false;
  bool view = false;    // a new shape over the same bytes
  bool random = false;  // draws from the counter-based stream: passes/cse.h merges none
};

// What passes/mixed_precision.h does with the op's f32 operands. One that gives nothing but views of parameters and
// constants takes the type of the others.
enum class Precision {
  kLow,          // in the low type: products, which gain most and whose sums are f32 inside
  kWide,         // in f32: what sums much, or magnifies rounding
  kFollow,       // in the low type if all are there already
  kFollowFirst,  // the first as it comes, the others in f32: norms, whose statistics and parameters stay f32
  kParts,        // as its decomposition, part by part
};

struct OpDef {
  Required<std::string> name;
  Required<std::string> doc;
  Required<std::vector<OperandSpec>> inputs;
  Required<std::vector<OperandSpec>> outputs;
  std::vector<AttrSpec> attrs = {};
  Required<InferFn> infer;
  Required<Gradient> gradient;
  Required<Reference> reference;
  DecomposeFn decompose = {};
  std::optional<Rematerialize> rematerialize = {};  // what passes/recompute.h uses
  CostFn cost = {};                                 // where the default is not right
  Traits traits = {};
  std::optional<Precision> precision =
      {};  // by default kFollow where element-wise or a view, else kWide, which is safe
  Required<std::vector<Sample>> samples;
  const OpRegistry* registry = nullptr;  // where it is registered, set there: its decomposition's ops come from it

  size_t min_inputs() const;
  Precision mixed_precision() const;
  const AttrSpec* find_attr(std::string_view attr) const;
};

// The op's type inference, between checks of what no op's own function needs to check again: how many inputs there are,
// that each attribute is there with its kind, and that integers in lists and the types it returns keep to kMaxSize. For
// products of several of them there is product(). What the builder, the parser and the verifier call.
TypesOrError infer_types(const OpContext& context);

std::string_view to_string(Precision precision);  // "low", "wide", ...

class OpRegistry {
 public:
  OpRegistry() = default;
  // Beside its own ops those of `base`, which outlives it: how ops of a plugin or a test join the built-in ones.
  explicit OpRegistry(const OpRegistry* base) : base_(base) {}
  OpRegistry(const OpRegistry&) = delete;  // ops point to the registry that has them
  OpRegistry& operator=(const OpRegistry&) = delete;
  // A second op of the same name, or one whose record contradicts itself, is an internal error.
  Status add(OpDef def);
  const OpDef* find(std::string_view name) const;
  struct Entry {
    const std::string& name;
    const OpDef& def;
  };
  std::vector<Entry> all() const;  // in order of names
  std::vector<std::string> names() const;

 private:
  const OpRegistry* base_ = nullptr;
  std::map<std::string, OpDef, std::less<>> ops_;
};

}  // namespace deepseek::graph
