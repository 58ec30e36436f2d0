// Tracing: Value is a symbolic tensor with NumPy's operators; ops are emitted by name from the registry; modules are
// the C++ ones of src/nn, and Python classes derive from them.
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <nanobind/trampoline.h>

#include "binding.h"
#include "nn/layers.h"
#include "ops/dsl.h"
#include "ops/registry.h"

namespace deepseek::python {

using namespace graph;

namespace {

// One tracing under way. Values keep it alive.
struct Session {
  Builder builder{ops::registry()};
  std::unique_ptr<nn::Trace> trace;
};
thread_local std::shared_ptr<Session> current;

struct Value {
  std::shared_ptr<Session> session;
  Expr expr;
};

std::shared_ptr<Session> active() {
  if (!current)
    throw nb::value_error(
        "ops on symbolic values work only while a module or function is traced: call the module on arrays, or use "
        "deepseek.trace");
  return current;
}

// A parameter or buffer of a Python module: an array outside, a state input while tracing.
struct Parameter {
  nb::object array;
  bool trainable = true;
  std::string name;
  nn::Module* module = nullptr;  // set when it is assigned to one, which then outlives it in practice
};

Value wrap(Expr e) {
  check(active()->builder.take_status());
  return {active(), e};
}

// `like` gives numbers their dtype.
Expr to_expr(nb::handle object, Expr like = {}) {
  const std::shared_ptr<Session> session = active();
  if (nb::isinstance<Value>(object)) {
    const Value& v = nb::cast<const Value&>(object);
    if (v.session != session)
      throw nb::value_error(
          "a symbolic value of another trace is used here; values live only inside the trace that made them");
    return v.expr;
  }
  if (nb::isinstance<Parameter>(object)) {
    const Parameter& p = nb::cast<const Parameter&>(object);
    if (p.module == nullptr || !session->trace)
      throw nb::value_error(
          "this Parameter belongs to no module of the trace; assign it to an attribute of the module");
    return session->trace->state(*p.module, p.name);
  }
  if (nb::isinstance<nb::float_>(object) || nb::isinstance<nb::int_>(object)) {
    DType dtype = nb::isinstance<nb::int_>(object) ? DType::kI64 : DType::kF32;
    if (like.defined()) dtype = like.dtype();
    return session->builder.scalar(dtype, nb::cast<double>(object));
  }
  Array array;
  if (nb::try_cast<Array>(object, array)) return session->builder.constant(to_tensor(array).clone());
  throw nb::type_error(
      fmt::format("expected a symbolic value, Parameter, array or number, got {}",
                  nb::cast<std::string>(nb::repr(nb::handle(reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()))))))
          .c_str());
}

nb::object emit(const std::string& op, nb::tuple inputs, nb::dict attrs) {
  const OpDef* def = ops::registry().find(op);
  if (def == nullptr) throw nb::attribute_error(("there is no op '" + op + "'").c_str());
  std::vector<Expr> exprs;
  Expr like;
  for (nb::handle h : inputs)
    if (!like.defined() && (nb::isinstance<Value>(h) || nb::isinstance<Parameter>(h))) like = to_expr(h);
  for (nb::handle h : inputs)
    if (!h.is_none()) exprs.push_back(to_expr(h, like));
  Attrs given;
  for (auto [key, value] : attrs) {
    const std::string name = nb::cast<std::string>(key);
    const AttrSpec* spec = def->find_attr(name);
    if (spec == nullptr) throw nb::type_error(fmt::format("{}() has no argument '{}'", op, name).c_str());
    given.set(name, attr_from_python(op, *spec, value));
  }
  const std::vector<Expr> out = active()->builder.emit(op, exprs, given);
  check(active()->builder.take_status());
  if (out.size() == 1) return nb::cast(Value{active(), out[0]});
  nb::list list;
  for (Expr e : out) list.append(nb::cast(Value{active(), e}));
  return nb::tuple(list);
}

nb::object binary(const char* op, nb::handle a, nb::handle b) {
  const Expr like = nb::isinstance<Value>(a) ? nb::cast<const Value&>(a).expr : nb::cast<const Value&>(b).expr;
  const Expr x = to_expr(a, like), y = to_expr(b, like);
  return nb::cast(wrap(active()->builder.op(op, {x, y})));
}

// nn::Module for Python classes to derive from.
class PyModule : public nn::Module {
 public:
  NB_TRAMPOLINE(nn::Module, 1);
  std::vector<Expr> forward(nn::Trace&, const std::vector<Expr>& inputs) override {
    nb::list args;
    for (Expr e : inputs) args.append(nb::cast(Value{active(), e}));
    const nb::object result = nb::find(static_cast<nn::Module*>(this)).attr("forward")(*nb::tuple(args));
    std::vector<Expr> out;
    if (nb::isinstance<nb::tuple>(result) || nb::isinstance<nb::list>(result))
      for (nb::handle h : result) out.push_back(to_expr(h));
    else
      out.push_back(to_expr(result));
    return out;
  }
};

// Makes `session` current for a scope, also when Python raises.
struct Activate {
  explicit Activate(std::shared_ptr<Session> session) : outer(std::exchange(current, std::move(session))) {}
  ~Activate() { current = outer; }
  std::shared_ptr<Session> outer;
};

nb::object unpack(const std::vector<Expr>& out) {
  if (out.size() == 1) return nb::cast(wrap(out[0]));
  nb::list list;
  for (Expr e : out) list.append(nb::cast(wrap(e)));
  return nb::tuple(list);
}

// Graph of module(inputs) with inputs named x0, x1, ... and outputs y0, y1, ...
Graph trace_module(nn::Module& module, const std::vector<std::pair<std::string, Dims>>& inputs, bool training) {
  auto session = std::make_shared<Session>();
  session->trace = std::make_unique<nn::Trace>(session->builder, module, training);
  Activate activate(session);
  std::vector<Expr> args;
  for (size_t i = 0; i < inputs.size(); ++i)
    args.push_back(
        session->builder.input("x" + std::to_string(i), {unwrap(parse_dtype(inputs[i].first)), inputs[i].second}));
  const std::vector<Expr> out = module.call(*session->trace, args);
  check(session->builder.take_status());
  for (size_t i = 0; i < out.size(); ++i) session->builder.output("y" + std::to_string(i), out[i]);
  session->trace->finish();
  return unwrap(session->builder.finish());
}

Graph trace_function(nb::callable function, const std::vector<std::pair<std::string, Dims>>& inputs) {
  auto session = std::make_shared<Session>();
  Activate activate(session);
  nb::list args;
  for (size_t i = 0; i < inputs.size(); ++i)
    args.append(
        nb::cast(Value{session, session->builder.input("x" + std::to_string(i),
                                                       {unwrap(parse_dtype(inputs[i].first)), inputs[i].second})}));
  const nb::object result = function(*nb::tuple(args));
  nb::list results;
  if (nb::isinstance<nb::tuple>(result) || nb::isinstance<nb::list>(result))
    for (nb::handle h : result) results.append(h);
  else
    results.append(result);
  size_t i = 0;
  for (nb::handle h : results) session->builder.output("y" + std::to_string(i++), to_expr(h));
  return unwrap(session->builder.finish());
}

}  // namespace

void bind_trace(nb::module_& m) {
  auto value =
      nb::class_<Value>(m, "Value", "A symbolic tensor inside a trace. NumPy's operators and broadcasting apply.");
  value.def_prop_ro("shape", [](const Value& v) { return nb::tuple(nb::cast(v.expr.dims())); })
      .def_prop_ro("ndim", [](const Value& v) { return v.expr.rank(); })
      .def_prop_ro("dtype", [](const Value& v) { return std::string(to_string(v.expr.dtype())); })
      .def("__repr__", [](const Value& v) { return "Value(" + to_string(v.expr.type()) + ")"; })
      .def("__bool__",
           [](const Value&) -> bool {
             throw nb::type_error(
                 "a symbolic value has no truth value while tracing; use deepseek.ops.select instead of if");
           })
      .def("__neg__", [](const Value& v) { return wrap(ops::neg(v.expr)); });
  const std::pair<const char*, const char*> operators[] = {
      {"add", "add"}, {"sub", "sub"}, {"mul", "mul"}, {"truediv", "div"}, {"pow", "pow"}};
  for (const auto& [name, op] : operators) {
    value.def(("__" + std::string(name) + "__").c_str(),
              [op = op](nb::handle a, nb::handle b) { return binary(op, a, b); }, nb::is_operator());
    value.def(("__r" + std::string(name) + "__").c_str(),
              [op = op](nb::handle b, nb::handle a) { return binary(op, a, b); }, nb::is_operator());
  }
  const std::pair<const char*, const char*> comparisons[] = {{"__lt__", "less"},
                                                             {"__le__", "less_equal"},
                                                             {"__gt__", "greater"},
                                                             {"__ge__", "greater_equal"},
                                                             {"__matmul__", "matmul"}};
  for (const auto& [name, op] : comparisons)
    value.def(
        name, [op = op](nb::handle a, nb::handle b) { return binary(op, a, b); }, nb::is_operator());

  nb::class_<Parameter>(m, "Parameter", "A tensor that training updates. Assign it to an attribute of a module.")
      .def(
          "__init__",
          [](Parameter* p, Array array, bool trainable) {
            new (p) Parameter{to_numpy(to_tensor(array).clone()), trainable, "", nullptr};
          },
          nb::arg("data"), nb::arg("trainable") = true)
      .def_prop_ro(
          "data", [](const Parameter& p) { return p.array; }, "The values, as a NumPy array over the module's memory.");
  m.def("emit", &emit, nb::arg("op"), nb::arg("inputs"), nb::arg("attrs"));
  m.def("trace_function", &trace_function);
  m.def("trace_module", &trace_module);

  nb::class_<nn::Module, PyModule>(m, "Module", nb::dynamic_attr(), nb::is_weak_referenceable())
      .def(nb::init<>())
      .def("_register_module", [](nn::Module& self, const std::string& name,
                                  std::shared_ptr<nn::Module> child) { self.register_module(name, std::move(child)); })
      .def("_register_parameter",
           [](nn::Module& self, const std::string& name, Parameter& p) {
             const Tensor tensor = to_tensor(nb::cast<Array>(p.array));
             p.trainable ? self.register_parameter(name, tensor) : self.register_buffer(name, tensor);
             p.name = name;
             p.module = &self;
           })
      .def("_state",
           [](const nn::Module& self) {
             nb::list out;
             for (const nn::State& s : self.named_state())
               out.append(nb::make_tuple(s.name, to_numpy(s.value), s.trainable));
             return out;
           })
      .def("_children", &nn::Module::children)
      .def("_call", [](nn::Module& self, nb::args inputs) {
        const std::shared_ptr<Session> session = active();
        if (!session->trace)
          throw nb::value_error("a module can be called on symbolic values only inside another module's forward");
        std::vector<Expr> args;
        for (nb::handle h : inputs) args.push_back(to_expr(h));
        const std::vector<Expr> out = self.call(*session->trace, args);
        return unpack(out);
      });
  nb::class_<nn::Linear, nn::Module>(m, "Linear")
      .def(nb::init<int64_t, int64_t, bool>(), nb::arg("in_features"), nb::arg("out_features"), nb::arg("bias") = true);
  nb::class_<nn::Conv, nn::Module>(m, "Conv").def(
      "__init__", [](nn::Conv* self, int64_t in, int64_t out, Dims kernel, Dims stride, Dims padding, Dims dilation,
                     int64_t groups, bool bias) {
        new (self) nn::Conv(in, out, std::move(kernel),
                            {std::move(stride), std::move(padding), std::move(dilation), groups, bias});
      });
  nb::class_<nn::BatchNorm, nn::Module>(m, "BatchNorm")
      .def(nb::init<int64_t, double, double>(), nb::arg("channels"), nb::arg("eps") = 1e-5, nb::arg("momentum") = 0.1);
  nb::class_<nn::LayerNorm, nn::Module>(m, "LayerNorm")
      .def(nb::init<Dims, double>(), nb::arg("shape"), nb::arg("eps") = 1e-5);
  nb::class_<nn::Dropout, nn::Module>(m, "Dropout").def(nb::init<double>(), nb::arg("p") = 0.5);
  m.def("manual_seed", &nn::manual_seed, nb::arg("seed"));
}

}  // namespace deepseek::python
