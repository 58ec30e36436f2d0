// Tracing from Python: the trace under way, symbolic values in it, and Python objects as values of the graph.
// Test: tests/python/test_nn.py
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "binding.h"

namespace deepseek::python {

// One tracing under way, into a builder of its own or one that C++ lends for a while. Values keep it alive.
struct Session {
  Session();
  Session(graph::Builder& b, nn::Trace* t) : builder(b), trace(t) {}
  void trace_into(nn::Module& module, bool training);
  std::unique_ptr<graph::Builder> own_builder;
  std::unique_ptr<nn::Trace> own_trace;
  graph::Builder& builder;
  nn::Trace* trace = nullptr;  // none while a bare function is traced
  bool alive = true;           // false once a builder that is not ours is gone
};

struct TracedValue {
  std::shared_ptr<Session> session;
  graph::Expr expr;
};

// Makes `session` current for a scope, also when Python raises.
struct Activate {
  explicit Activate(std::shared_ptr<Session> session);
  ~Activate();
  Activate(const Activate&) = delete;
  Activate& operator=(const Activate&) = delete;
  std::shared_ptr<Session> outer;
};

// The current session; raises ValueError where nothing is traced.
std::shared_ptr<Session> active();
bool tracing();
// The module trace of the current session; raises ValueError while a bare function is traced.
nn::Trace& active_trace();

// A number that tells what an object holds, as far as forward() or a loss may read it: see structure.cc.
uint64_t contents_of(nb::handle object);

// While one lives, this thread looks into an object once, however many modules hold it: a model's configuration, say.
class ContentsPass {
 public:
  ContentsPass();
  ~ContentsPass();
  ContentsPass(const ContentsPass&) = delete;
  ContentsPass& operator=(const ContentsPass&) = delete;

 private:
  bool outer_;
};

// Graph of module(inputs), or of function(inputs), which returns a list, where that is not None. Inputs are named x0,
// x1, ..., outputs y0, ...
graph::Graph trace_module(nn::Module& module, const std::vector<graph::TensorType>& inputs, bool training,
                          nb::handle function);

// A symbolic value, parameter, array or number as a value of the current graph. `like` gives numbers their dtype.
graph::Expr to_expr(nb::handle object, graph::Expr like = {});
// The same; an undefined Expr for None.
graph::Expr to_optional_expr(nb::handle object);
TracedValue wrap(graph::Expr e);
// One TracedValue, or a tuple of them. Raises what the builder has to say.
nb::object unpack(const std::vector<graph::Expr>& out);

}  // namespace deepseek::python
