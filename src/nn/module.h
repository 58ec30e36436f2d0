// Modules own parameters and buffers and know how to write themselves into a graph. Nothing computes here: calling a
// module traces it. Names are PyTorch's ("layer1.0.conv1.weight"), so weights exchange by name.
// Test: tests/nn/module_test.cc
#pragma once

#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/status.h"
#include "graph/builder.h"
#include "graph/tensor.h"
#include "nn/initializer.h"

namespace deepseek::nn {

using graph::Builder;
using graph::Dims;
using graph::Expr;
using graph::Tensor;

// What a layer does beside its tensors, by PyTorch's names of its arguments.
struct Setting {
  enum Kind {
    kFree,    // may change after the layer was made
    kFixed,   // shapes of tensors follow from it
    kHidden,  // as kFixed, and no attribute: its name is a tensor's or means something else
  };
  using Value =
      std::variant<bool*, int64_t*, double*, std::optional<int64_t>*, std::optional<double>*, Dims*, std::string*>;
  const char* name;
  Value value;
  Kind kind = kFree;
};

// One of what forward() takes. Where the caller has nothing of its name and it is not required, it is undefined.
struct InputName {
  std::string name;
  bool required = true;
};

class Module;
using ModulePtr = std::shared_ptr<Module>;

// One named tensor of a module tree. Trainable ones are parameters, others buffers (running statistics).
struct State {
  std::string name;
  Tensor value;
  bool trainable;
};

// Names of a graph's inputs. No name of a module or tensor holds a slash, so what a graph has of its own ("step/...",
// "optimizer/...", the random counter) meets none of them; and a data input that a tensor of `root` is called like
// takes a name apart, which data_name() undoes.
constexpr const char* kRandomCounter = "random/counter";
std::string input_name(const Module& root, const std::string& name);
std::string data_name(const std::string& input_name);

// One tracing of a module tree into a builder. State inputs appear when they are first used.
class Trace {
 public:
  Trace(Builder& builder, const Module& root, bool training);

  Builder& builder() { return builder_; }
  // Whether the trace is of training; a module that was set to evaluate does so in training too.
  bool training() const { return training_; }
  bool training(const Module& module) const;
  // The graph's value of one of `module`'s own tensors.
  Expr state(const Module& module, const std::string& name);
  // The tensor takes `value` after each run (batch norm's running statistics).
  void update(const Module& module, const std::string& name, Expr value);
  // The random counter, i64[2] = (seed, step), and a number for each drawing site. Traces that draw advance the step.
  Expr random_state();
  int64_t next_stream() { return next_stream_++; }
  // "layer1.0.conv1" of a module in the tree; empty for the root.
  const std::string& path(const Module& module) const;
  // Writes the pending state updates; call once, after the forward pass.
  void finish();

 private:
  Builder& builder_;
  bool training_;
  std::map<const Module*, std::string> paths_;
  std::map<std::string, Expr> states_;
  std::vector<std::pair<Expr, Expr>> updates_;
  Expr random_;
  int64_t next_stream_ = 0;
};

class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  // Writes the module into the trace. Errors stick to the builder.
  virtual std::vector<Expr> forward(Trace& trace, const std::vector<Expr>& inputs) = 0;
  // What forward() calls its inputs, in order; none where it takes them in the caller's order.
  virtual std::vector<InputName> input_names() const { return {}; }
  // What the last forward() called its outputs; none where it has no names for them.
  virtual std::vector<std::string> output_names() const { return {}; }
  // forward() inside the module's name scope.
  std::vector<Expr> call(Trace& trace, const std::vector<Expr>& inputs);
  Expr operator()(Trace& trace, Expr x) { return call(trace, {x})[0]; }

  // A name holds no dots and slashes, else status() tells. A second value of a name takes the first one's place.
  void register_parameter(const std::string& name, Tensor value);
  // Made only where a tensor may be so large, else status() tells.
  void register_parameter(const std::string& name, Dims dims, const std::function<Tensor(Dims)>& make);
  void register_buffer(const std::string& name, Tensor value);
  void register_module(const std::string& name, ModulePtr child);
  // Drops the tensor or child of this name; false where there is none.
  bool unregister(const std::string& name);
  template <class M>
  std::shared_ptr<M> add(const std::string& name, std::shared_ptr<M> child) {
    register_module(name, child);
    return child;
  }

  // All tensors of the tree, depth first, in order of registration. Shared modules appear once.
  std::vector<State> named_state() const;
  const std::vector<std::pair<std::string, ModulePtr>>& children() const { return children_; }
  const std::vector<State>& own_state() const { return own_; }
  int64_t num_parameters() const;
  // Copies values by name. Every name must match in both directions and have the same shape; the error lists all that
  // don't.
  Status load_state(const std::map<std::string, Tensor>& values);
  // What was wrong with the constructor's arguments; tracing such a module fails with it.
  const Status& status() const { return status_; }
  // The first error of this module or one below, which it names.
  Status tree_status() const;
  // false: this module (not its children) behaves as in evaluation even where the trace is of training.
  void set_training(bool training);
  bool training() const { return training_; }
  // All that its constructor was told. Who writes to one calls changed().
  virtual std::vector<Setting> settings() { return {}; }
  // Traces of this module so far no longer hold: it got a tensor or a child, or forward() will do something else.
  void changed();
  // Also what `watcher` gives for this module decides whether traces hold: it is asked each time.
  void watch(bool watched);
  bool watched() const { return watched_; }
  static void set_watcher(uint64_t (*watcher)(const Module&));
  static uint64_t watcher(const Module& module);
  // Tells modules and their changes apart, also after a module's memory was given to another one.
  uint64_t serial() const { return serial_; }
  uint64_t revision() const { return revision_; }
  // Changes whenever any module changes, in its mode too.
  static uint64_t structure_version();
  // Expires with the module, for those who must not own it.
  std::weak_ptr<Module*> handle() const { return self_; }

 protected:
  // Keeps the first error; true where `holds`.
  template <class... Args>
  bool require(bool holds, fmt::format_string<Args...> format, Args&&... args) {
    if (!holds && status_.ok()) status_ = invalid(format, std::forward<Args>(args)...);
    return holds;
  }
  // That none of the sizes is above kMaxSize, so that products of two of them don't overflow.
  bool require_possible(const char* layer, std::initializer_list<int64_t> sizes);

 private:
  void register_tensor(const std::string& name, Tensor value, bool trainable);
  std::vector<State> own_;
  std::vector<std::pair<std::string, ModulePtr>> children_;
  std::shared_ptr<Module*> self_ = std::make_shared<Module*>(this);
  Status status_;
  uint64_t serial_ = next_serial(), revision_ = 0;
  bool training_ = true, watched_ = false;
  static uint64_t next_serial();
};

// What traces of a module tree depend on: its modules, their changes and modes. Equal keys mean that a trace holds.
class Structure {
 public:
  // Brings it up to date with the tree; true where it has changed since the last time.
  bool update(const Module& root);
  const std::string& key() const { return key_; }

 private:
  uint64_t version_ = 0;
  bool watched_ = true;
  std::string key_;
};

// The name scope of a module inside a trace; reports the module's status to the builder.
class ModuleScope {
 public:
  ModuleScope(Trace& trace, const Module& module);
  ~ModuleScope() { builder_.set_scope(outer_); }
  ModuleScope(const ModuleScope&) = delete;
  ModuleScope& operator=(const ModuleScope&) = delete;

 private:
  Builder& builder_;
  std::string outer_;
};

}  // namespace deepseek::nn
