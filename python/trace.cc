// Tracing: TracedValue is a symbolic tensor with NumPy's operators; ops are emitted by name from the registry; modules are
// the C++ ones of src/nn, and Python classes derive from them.
#include "trace.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <nanobind/trampoline.h>

#include <algorithm>
#include <cstdint>

#include "nn/module.h"
#include "ops/dsl.h"
#include "ops/registry.h"
#include "passes/autodiff.h"

namespace deepseek::python {

using namespace graph;

namespace {

thread_local std::shared_ptr<Session> current;

// The expression of a value whose trace still exists.
const Expr& live(const TracedValue& v) {
  if (!v.session->alive) throw nb::value_error("this symbolic value is from a trace that has ended; don't keep values");
  return v.expr;
}

// A parameter or buffer of a Python module: an array outside, a state input while tracing.
struct Parameter {
  NumpyArray array;
  bool trainable = true;
  std::string name;
  std::weak_ptr<nn::Module*> module = {};  // the one it is assigned to
};

// A Python integer as a scalar, to the last digit. Raises OverflowError where the dtype does not have it.
Tensor integer(nb::handle object, DType dtype) {
  Tensor out(dtype, {});
  if (is_float(dtype)) {
    const double value = PyLong_AsDouble(object.ptr());
    if (PyErr_Occurred()) throw nb::python_error();
    out.set(0, value);
    return out;
  }
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(object.ptr(), &overflow);
  const auto fits = [&](auto least, auto most) { return overflow == 0 && value >= least && value <= most; };
  bool ok = overflow == 0;
  switch (dtype) {
    case DType::kI64: *out.as<int64_t>() = value; break;
    case DType::kI32:
      ok = fits(INT32_MIN, INT32_MAX);
      *out.as<int32_t>() = static_cast<int32_t>(value);
      break;
    case DType::kI8:
      ok = fits(INT8_MIN, INT8_MAX);
      *out.as<int8_t>() = static_cast<int8_t>(value);
      break;
    case DType::kU8:
      ok = fits(0, UINT8_MAX);
      *out.as<uint8_t>() = static_cast<uint8_t>(value);
      break;
    default: out.set(0, value != 0 || overflow != 0); return out;
  }
  if (ok) return out;
  PyErr_Format(PyExc_OverflowError, "Python integer %S is out of bounds for %s", object.ptr(),
               std::string(to_string(dtype)).c_str());
  throw nb::python_error();
}

}  // namespace

Session::Session() : own_builder(std::make_unique<Builder>(ops::registry())), builder(*own_builder) {}
void Session::trace_into(nn::Module& module, bool training) {
  own_trace = std::make_unique<nn::Trace>(builder, module, training);
  trace = own_trace.get();
}

Activate::Activate(std::shared_ptr<Session> session) : outer(std::exchange(current, std::move(session))) {}
Activate::~Activate() { current = outer; }

bool tracing() { return current != nullptr; }

std::shared_ptr<Session> active() {
  if (!current)
    throw nb::value_error(
        "ops on symbolic values work only while a module or function is traced: call the module on arrays, or use "
        "deepseek.trace");
  return current;
}

nn::Trace& active_trace() {
  if (!active()->trace)
    throw nb::value_error("a module can be called on symbolic values only inside another module's forward");
  return *active()->trace;
}

TracedValue wrap(Expr e) {
  check(active()->builder.take_status());
  return {active(), e};
}

Expr to_optional_expr(nb::handle object) { return object.is_none() ? Expr() : to_expr(object); }

Expr to_expr(nb::handle object, Expr like) {
  const std::shared_ptr<Session> session = active();
  if (nb::isinstance<TracedValue>(object)) {
    const TracedValue& v = nb::cast<const TracedValue&>(object);
    if (v.session != session)
      throw nb::value_error(
          "a symbolic value of another trace is used here; values live only inside the trace that made them");
    return v.expr;
  }
  if (nb::isinstance<Parameter>(object)) {
    const Parameter& p = nb::cast<const Parameter&>(object);
    const std::shared_ptr<nn::Module*> module = p.module.lock();
    if (!module || !session->trace)
      throw nb::value_error(
          "this Parameter belongs to no module of the trace; assign it to an attribute of the module");
    const Expr e = session->trace->state(**module, p.name);
    check(session->builder.take_status());
    return e;
  }
  if (nb::isinstance<nb::int_>(object)) {
    const DType dtype = like.defined() ? like.dtype() : DType::kI64;
    if (!PyLong_CheckExact(object.ptr())) nb::cast<double>(object);  // a size (AxisSize) is told that it was looked at
    return session->builder.constant(integer(object, dtype));
  }
  if (nb::isinstance<nb::float_>(object))
    return session->builder.scalar(like.defined() ? like.dtype() : DType::kF32, nb::cast<double>(object));
  if (nb::isinstance(object, nb::module_::import_("numpy").attr("generic"))) {
    const nb::object number = object.attr("item")();
    if (nb::isinstance<nb::int_>(number) || nb::isinstance<nb::float_>(number)) return to_expr(number, like);
  }
  Array array;
  if (nb::try_cast<Array>(object, array)) return session->builder.constant(to_tensor(array).clone());
  throw nb::type_error(
      fmt::format("expected a symbolic value, Parameter, array or number, got {}",
                  nb::cast<std::string>(nb::repr(nb::handle(reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()))))))
          .c_str());
}

nb::object unpack(const std::vector<Expr>& out) {
  if (out.size() == 1) return nb::cast(wrap(out[0]));
  nb::list list;
  for (Expr e : out) list.append(nb::cast(wrap(e)));
  return nb::tuple(list);
}

namespace {

nb::object emit(const std::string& op, nb::tuple inputs, nb::dict attrs) {
  const OpDef* def = ops::registry().find(op);
  if (def == nullptr) throw nb::attribute_error(("there is no op '" + op + "'").c_str());
  std::vector<Expr> exprs;
  Expr like;
  // Numbers take the dtype of the first value; a condition counts only where there is nothing else.
  for (nb::handle h : inputs)
    if (!like.defined() || like.dtype() == DType::kBool)
      if (nb::isinstance<TracedValue>(h) || nb::isinstance<Parameter>(h)) like = to_expr(h);
  bool absent = false;
  for (nb::handle h : inputs) {
    if (absent && !h.is_none())
      throw nb::type_error(fmt::format("{}(): an input that is None comes before one that is given", op).c_str());
    absent = h.is_none();
    if (!absent) exprs.push_back(to_expr(h, like));
  }
  Attrs given;
  for (auto [key, value] : attrs) {
    const std::string name = nb::cast<std::string>(key);
    const AttrSpec* spec = def->find_attr(name);
    if (spec == nullptr) throw nb::type_error(fmt::format("{}() has no argument '{}'", op, name).c_str());
    given.set(name, attr_from_python(op, *spec, value));
  }
  return unpack(active()->builder.emit(op, exprs, given));
}

// bool meets anything as 0 and 1, an integer meets a float as that float; two floats or two integers must agree.
void promote(Expr& x, Expr& y) {
  const auto rank = [](DType d) { return is_float(d) ? 2 : d == DType::kBool ? 0 : 1; };
  if (!x.defined() || !y.defined()) return;
  if (rank(x.dtype()) < rank(y.dtype())) x = ops::cast(x, y.dtype());
  if (rank(y.dtype()) < rank(x.dtype())) y = ops::cast(y, x.dtype());
}

TracedValue binary(const char* op, nb::handle a, nb::handle b) {
  const Expr like =
      nb::isinstance<TracedValue>(a) ? nb::cast<const TracedValue&>(a).expr : nb::cast<const TracedValue&>(b).expr;
  // 2.5 beside an integer value makes the result a float, as in NumPy.
  const auto read = [&](nb::handle h) {
    const bool widens = nb::isinstance<nb::float_>(h) && !is_float(like.dtype());
    return to_expr(h, widens || nb::isinstance<nb::bool_>(h) ? Expr() : like);
  };
  Expr x = read(a), y = read(b);
  promote(x, y);
  return wrap(active()->builder.op(op, {x, y}));
}

// nn::Module for Python classes to derive from.
class PyModule : public nn::Module {
 public:
  NB_TRAMPOLINE(nn::Module, 1);
  std::vector<Expr> forward(nn::Trace& trace, const std::vector<Expr>& inputs) override {
    std::vector<Expr> values;
    std::vector<std::string> names;
    in_trace(trace.builder(), &trace, [&](const WrapExpr& wrap) {
      const nb::object self = nb::find(static_cast<nn::Module*>(this));
      // By name where forward() names them, so that one which is not there takes its default.
      std::vector<nn::InputName> inputs_of;
      if (std::any_of(inputs.begin(), inputs.end(), [](Expr e) { return !e.defined(); })) inputs_of = input_names();
      nb::list args;
      nb::dict kwargs;
      for (size_t i = 0; i < inputs.size(); ++i) {
        if (inputs_of.empty())
          args.append(wrap(inputs[i]));
        else if (inputs[i].defined())
          kwargs[inputs_of[i].name.c_str()] = wrap(inputs[i]);
      }
      const nb::object result = self.attr("forward")(*nb::tuple(args), **kwargs);
      if (nb::isinstance<nb::dict>(result)) {
        for (auto [name, value] : nb::cast<nb::dict>(result)) {
          if (!nb::isinstance<nb::str>(name))
            throw nb::type_error(fmt::format("forward() returned a dict with the key {}; expected names of outputs",
                                             nb::cast<std::string>(nb::repr(name)))
                                     .c_str());
          names.push_back(nb::cast<std::string>(name));
          values.push_back(to_expr(value));
        }
      } else if (nb::isinstance<nb::tuple>(result) || nb::isinstance<nb::list>(result)) {
        for (nb::handle h : result) values.push_back(to_expr(h));
      } else {
        values.push_back(to_expr(result));
      }
    });
    outputs_ = std::move(names);
    return values;
  }
  std::vector<std::string> output_names() const override { return outputs_; }
  std::vector<nn::InputName> input_names() const override {
    const Acquired gil;
    const nb::object self = nb::find(static_cast<const nn::Module*>(this));
    std::vector<nn::InputName> names;
    for (nb::handle name : self.attr("_input_names")())
      names.push_back({nb::cast<std::string>(name[nb::int_(0)]), nb::cast<bool>(name[nb::int_(1)])});
    return names;
  }

 private:
  std::vector<std::string> outputs_;
};

Graph trace_function(nb::callable function, const std::vector<std::pair<std::string, Dims>>& inputs) {
  auto session = std::make_shared<Session>();
  Activate activate(session);
  nb::list args;
  for (size_t i = 0; i < inputs.size(); ++i)
    args.append(nb::cast(TracedValue{
        session,
        session->builder.input("x" + std::to_string(i), {unwrap(parse_dtype(inputs[i].first)), inputs[i].second})}));
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

Graph trace_module(nn::Module& module, const std::vector<TensorType>& inputs, bool training, nb::handle function) {
  auto session = std::make_shared<Session>();
  session->trace_into(module, training);
  Activate activate(session);
  std::vector<Expr> args;
  for (size_t i = 0; i < inputs.size(); ++i)
    args.push_back(session->builder.input(nn::input_name(module, "x" + std::to_string(i)), inputs[i]));
  std::vector<Expr> out;
  if (function.is_none()) {
    out = module.call(*session->trace, args);
  } else {
    nb::list values;
    for (Expr e : args) values.append(nb::cast(TracedValue{session, e}));
    for (nb::handle h : nb::list(function(*nb::tuple(values)))) out.push_back(to_expr(h));
  }
  check(session->builder.take_status());
  for (size_t i = 0; i < out.size(); ++i) session->builder.output("y" + std::to_string(i), out[i]);
  session->trace->finish();
  return unwrap(session->builder.finish());
}

void in_trace(Builder& builder, nn::Trace* trace, const std::function<void(const WrapExpr&)>& body) {
  const Acquired gil;
  std::shared_ptr<Session> session = current;
  const bool foreign = !session || &session->builder != &builder;
  if (foreign) session = std::make_shared<Session>(builder, trace);
  const Activate activate(session);
  const auto end = [foreign](Session* s) { s->alive = !foreign; };
  const std::unique_ptr<Session, decltype(end)> ends(session.get(), end);
  body([&](Expr e) { return nb::cast(TracedValue{session, e}); });
}

void bind_trace(nb::module_& m) {
  auto value = nb::class_<TracedValue>(m, "Value",
                                       "A symbolic tensor inside a trace. NumPy's operators and broadcasting apply.");
  value.def_prop_ro("shape", [](const TracedValue& v) { return nb::tuple(nb::cast(live(v).dims())); })
      .def_prop_ro("_shape", [](const TracedValue& v) { return nb::tuple(nb::cast(live(v).dims())); })
      .def_prop_ro("ndim", [](const TracedValue& v) { return live(v).rank(); })
      .def_prop_ro("dtype", [](const TracedValue& v) { return std::string(to_string(live(v).dtype())); })
      .def("__repr__",
           [](const TracedValue& v) {
             return v.session->alive ? "Value(" + to_string(v.expr.type()) + ")"
                                     : std::string("Value(of an ended trace)");
           })
      .def("__bool__",
           [](const TracedValue&) -> bool {
             throw nb::type_error(
                 "a symbolic value has no truth value while tracing; use deepseek.ops.select instead of if");
           })
      .def("__neg__", [](const TracedValue& v) { return wrap(ops::neg(v.expr)); });
  const std::pair<const char*, const char*> operators[] = {
      {"add", "add"}, {"sub", "sub"},       {"mul", "mul"},         {"truediv", "div"},
      {"pow", "pow"}, {"matmul", "matmul"}, {"and", "logical_and"}, {"or", "logical_or"}};
  for (const auto& [name, op] : operators) {
    value.def(("__" + std::string(name) + "__").c_str(),
              [op = op](nb::handle a, nb::handle b) { return binary(op, a, b); }, nb::is_operator());
    value.def(("__r" + std::string(name) + "__").c_str(),
              [op = op](nb::handle b, nb::handle a) { return binary(op, a, b); }, nb::is_operator());
  }
  const std::pair<const char*, const char*> comparisons[] = {{"__lt__", "less"},    {"__le__", "less_equal"},
                                                             {"__gt__", "greater"}, {"__ge__", "greater_equal"},
                                                             {"__eq__", "equal"},   {"__ne__", "not_equal"}};
  for (const auto& [name, op] : comparisons)
    value.def(
        name, [op = op](nb::handle a, nb::handle b) { return binary(op, a, b); }, nb::is_operator());

  nb::class_<Parameter>(m, "Parameter", "A tensor that training updates. Assign it to an attribute of a module.")
      .def(
          "__init__",
          [](Parameter* p, Array array, bool trainable) {
            new (p) Parameter{to_numpy(to_tensor(array).clone()), trainable, "", {}};
          },
          nb::arg("data"), nb::arg("trainable") = true)
      .def_prop_ro(
          "data", [](const Parameter& p) { return p.array; }, "The values, as a NumPy array over the module's memory.")
      .def("__reduce__",
           [](const Parameter& p) {
             return nb::make_tuple(nb::type<Parameter>(), nb::make_tuple(p.array.attr("copy")(), p.trainable));
           })
      .def_ro("trainable", &Parameter::trainable)
      .def_ro("name", &Parameter::name)
      .def(
          "_value", [](nb::handle self) { return wrap(to_expr(self)); }, "The value inside the trace under way.");
  m.def("tracing", &tracing, "Whether a module or function is being traced.");
  m.def("emit", &emit, nb::arg("op"), nb::arg("inputs"), nb::arg("attrs"));
  m.def("trace_function", &trace_function);
  m.def(
      "autodiff",
      [](const Graph& graph, const std::string& output, const std::vector<std::string>& wrt) {
        return unwrap(passes::autodiff(graph, output, wrt));
      },
      nb::arg("graph"), nb::arg("output"), nb::arg("wrt"),
      "The graph with one more output \"grad:<name>\" per input of `wrt`, the gradient of the scalar `output`.");
  m.def(
      "trace_module",
      [](nn::Module& module, const std::vector<std::pair<std::string, Dims>>& inputs, bool training,
         nb::object function) {
        std::vector<TensorType> types;
        for (const auto& [dtype, dims] : inputs) types.push_back({unwrap(parse_dtype(dtype)), dims});
        return trace_module(module, types, training, function);
      },
      nb::arg("module"), nb::arg("inputs"), nb::arg("training"), nb::arg("function") = nb::none());
  m.def(
      "observe_size",
      [](int64_t size) {
        if (current) current->builder.observe(size);
      },
      nb::arg("size"), "The code that is traced has decided something by this size of a value.");
  m.def(
      "in_scope",
      [](nn::Module& module, nb::callable function) {
        if (!active()->trace) return nb::object(function());  // in a bare function: a loss, say
        nn::ModuleScope scope(active_trace(), module);
        check(active()->builder.take_status());
        return nb::object(function());
      },
      nb::arg("module"), nb::arg("function"), "function() under the module's name scope.");
  m.def(
      "dropout",
      [](nb::handle x, double rate) {
        nn::Trace& trace = active_trace();
        return wrap(trace.builder().op("dropout", {to_expr(x), trace.random_state()},
                                       {{"rate", rate}, {"stream", trace.next_stream()}}));
      },
      nb::arg("x"), nb::arg("rate"), "Draws a new mask in each run.");

  nb::class_<nn::Module, PyModule>(m, "Module", nb::dynamic_attr(), nb::is_weak_referenceable())
      .def(nb::init<>())
      .def("_register_module",
           [](nn::Module& self, const std::string& name, std::shared_ptr<nn::Module> child) {
             self.register_module(name, std::move(child));
             check(self.status());
           })
      .def(
          "_register_parameter",
          [](nn::Module& self, const std::string& name, Parameter& p) {
            if (const std::shared_ptr<nn::Module*> other = p.module.lock();
                other && !(*other == &self && p.name == name))
              throw nb::value_error(
                  fmt::format("this Parameter is '{}' of a module already; share the module, or make another Parameter",
                              p.name)
                      .c_str());
            const Tensor tensor = to_tensor(nb::cast<Array>(p.array));
            p.trainable ? self.register_parameter(name, tensor) : self.register_buffer(name, tensor);
            check(self.status());
            p.name = name;
            p.module = self.handle();
          })
      .def(
          "_parameter",
          [](nn::Module& self, const std::string& name) -> nb::object {
            for (const nn::State& s : self.own_state())
              if (s.name == name) return nb::cast(Parameter{to_numpy(s.value), s.trainable, name, self.handle()});
            return nb::none();
          },
          "The module's own parameter or buffer of this name, or None.")
      .def_prop_rw(
          "training",
          // Inside a trace of evaluation every module evaluates.
          [](const nn::Module& self) {
            return self.training() && (!current || !current->trace || current->trace->training());
          },
          &nn::Module::set_training,
          "False: this module behaves as in evaluation. train() and eval() set it for all below.")
      .def("_state",
           [](const nn::Module& self) {
             nb::list out;
             for (const nn::State& s : self.named_state())
               out.append(nb::make_tuple(s.name, to_numpy(s.value), s.trainable));
             return out;
           })
      .def("_children", &nn::Module::children)
      .def("_call", [](nn::Module& self, nb::args inputs) {
        nn::Trace& trace = active_trace();
        std::vector<Expr> args;
        // The first input is never optional.
        for (nb::handle h : inputs) args.push_back(args.empty() ? to_expr(h) : to_optional_expr(h));
        if (args.empty()) throw nb::type_error("expected at least one input");
        return unpack(self.call(trace, args));
      });
  m.def("manual_seed", &nn::manual_seed, nb::arg("seed"));
}

}  // namespace deepseek::python
