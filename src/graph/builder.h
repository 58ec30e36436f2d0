// Builds graphs. Errors stick: a failed op returns an undefined Expr, later ops on it do nothing, and status() (or
// finish()) tells the first error with the name scope it happened in. So building code needs no checks in between.
// Test: tests/graph/graph_test.cc
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"

namespace deepseek::graph {

class Builder;

// A value under construction. Operators on it are in ops/dsl.h.
class Expr {
 public:
  Expr() = default;
  Expr(Builder* builder, Value value) : builder_(builder), value_(value) {}
  bool defined() const { return builder_ != nullptr && value_.defined(); }
  Builder& builder() const { return *builder_; }
  Builder* builder_or_null() const { return builder_; }
  Value value() const { return value_; }
  // By value: the builder's storage moves as it grows. An undefined Expr has the type f32[].
  TensorType type() const;
  Dims dims() const { return type().dims; }
  int64_t dim(int64_t axis) const;  // negative axes count from the end; 1 where out of range after an error
  int64_t rank() const { return type().rank(); }
  DType dtype() const { return type().dtype; }

 private:
  Builder* builder_ = nullptr;
  Value value_;
};

class Builder {
 public:
  explicit Builder(const OpRegistry& registry) : registry_(&registry) {}
  Builder(const Builder&) = delete;
  Builder& operator=(const Builder&) = delete;

  Expr input(std::string name, TensorType type, InputKind kind = InputKind::kData);
  Expr state(std::string name, TensorType type) { return input(std::move(name), std::move(type), InputKind::kState); }
  // Emits one node. Attributes left out take the op's defaults.
  std::vector<Expr> emit(std::string_view op, std::vector<Expr> inputs, Attrs attrs = {});
  Expr op(std::string_view op, std::vector<Expr> inputs, Attrs attrs = {});  // first output
  Expr constant(Tensor value);
  Expr scalar(DType dtype, double value) { return constant(Tensor::scalar(dtype, value)); }

  void output(std::string name, Expr value);
  // The state input `state` takes `value` after each run; types must match.
  void update(Expr state, Expr value);
  // Copies `graph`'s nodes with its inputs bound to `inputs`; returns the Expr of each value by its id in `graph`. An
  // Expr in `given` takes the place of a value that a node gives.
  std::vector<Expr> inline_values(const Graph& graph, std::span<const Expr> inputs,
                                  const std::map<int32_t, Expr>& given = {});
  // The same, returning the Expr of each output; updates are left out.
  std::vector<Expr> inline_graph(const Graph& graph, std::span<const Expr> inputs);

  // The code that builds has decided something by this size of a value: compared it, say.
  void observe(int64_t size) { data_.observed.push_back(size); }

  const std::string& scope() const { return scope_; }
  void set_scope(std::string scope) { scope_ = std::move(scope); }

  const Status& status() const { return status_; }
  void fail(Status status);  // keeps the first
  Status take_status();      // returns the error and clears it (interactive use)
  const TensorType& type(Value v) const { return data_.types[v.id]; }
  const Graph::Data& data() const { return data_; }
  const OpRegistry& registry() const { return *registry_; }

  // Verified graph; nodes that no output or update needs are left out.
  Result<Graph> finish();

 private:
  Value new_value(TensorType type, int32_t producer);
  const OpRegistry* registry_;
  Graph::Data data_;
  std::string scope_;
  Status status_;
};

// RAII name scope.
class Scope {
 public:
  Scope(Builder& builder, std::string_view name) : builder_(builder), outer_(builder.scope()) {
    builder_.set_scope(outer_.empty() || name.empty() ? outer_ + std::string(name) : outer_ + "/" + std::string(name));
  }
  ~Scope() { builder_.set_scope(outer_); }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  Builder& builder_;
  std::string outer_;
};

}  // namespace deepseek::graph
