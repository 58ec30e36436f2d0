// The extension module: arrays, graphs, programs and training steps. Errors become Python exceptions with the same
// message; the GIL is released while programs compile and run.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "backends/cpu/cpu_backend.h"
#include "base/threads.h"
#include "graph/builder.h"
#include "graph/text.h"
#include "models/zoo.h"
#include "ops/interpreter.h"
#include "ops/registry.h"
#include "train/step.h"

namespace nb = nanobind;
using namespace deepseek;
using namespace deepseek::graph;
using Array = nb::ndarray<nb::c_contig, nb::device::cpu>;

namespace {

void check(const Status& status) {
  if (status.ok()) return;
  const std::string text = status.to_string();
  if (status.code() == ErrorCode::kInvalidArgument) throw nb::value_error(text.c_str());
  throw std::runtime_error(text);
}
template <class T>
T unwrap(Result<T> result) {
  check(result.ok() ? Status() : result.status());
  return std::move(result).value();
}

DType dtype_of(const nb::dlpack::dtype& d) {
  using Code = nb::dlpack::dtype_code;
  const auto is = [&](Code code, int bits) { return d.code == static_cast<uint8_t>(code) && d.bits == bits && d.lanes == 1; };
  if (is(Code::Float, 32)) return DType::kF32;
  if (is(Code::Float, 64)) return DType::kF64;
  if (is(Code::Float, 16)) return DType::kF16;
  if (is(Code::Bfloat, 16)) return DType::kBF16;
  if (is(Code::Int, 64)) return DType::kI64;
  if (is(Code::Int, 32)) return DType::kI32;
  if (is(Code::Int, 8)) return DType::kI8;
  if (is(Code::UInt, 8)) return DType::kU8;
  if (is(Code::Bool, 8)) return DType::kBool;
  throw nb::type_error("array dtype is not supported; use float32, float64, float16, int64, int32, int8, uint8 or bool");
}
nb::dlpack::dtype dlpack_dtype(DType d) {
  using Code = nb::dlpack::dtype_code;
  const Code code = d == DType::kBool ? Code::Bool : d == DType::kU8 ? Code::UInt : d == DType::kBF16 ? Code::Bfloat : is_float(d) ? Code::Float : Code::Int;
  return {static_cast<uint8_t>(code), static_cast<uint8_t>(8 * size_of(d)), 1};
}

// Shares the array's memory; the array lives as long as the tensor.
Tensor to_tensor(const Array& array) {
  Dims dims;
  for (size_t i = 0; i < array.ndim(); ++i) dims.push_back(static_cast<int64_t>(array.shape(i)));
  auto owner = std::shared_ptr<Array>(new Array(array), [](Array* a) {
    nb::gil_scoped_acquire gil;
    delete a;
  });
  return Tensor({dtype_of(array.dtype()), dims}, const_cast<void*>(static_cast<const void*>(array.data())), owner);
}
nb::object to_numpy(const Tensor& t) {
  auto* keep = new Tensor(t);
  nb::capsule owner(keep, [](void* p) noexcept { delete static_cast<Tensor*>(p); });
  std::vector<size_t> shape(t.dims().begin(), t.dims().end());
  return nb::cast(nb::ndarray<nb::numpy>(t.data(), shape.size(), shape.data(), owner, nullptr, dlpack_dtype(t.dtype())));
}
nb::list to_list(const std::vector<Tensor>& tensors) {
  nb::list out;
  for (const Tensor& t : tensors) out.append(to_numpy(t));
  return out;
}
std::vector<Tensor> to_tensors(const std::vector<Array>& arrays) {
  std::vector<Tensor> out;
  for (const Array& a : arrays) out.push_back(to_tensor(a));
  return out;
}

nb::object attr_to_python(const AttrValue& value) {
  struct Visitor {
    nb::object operator()(bool v) const { return nb::bool_(v); }
    nb::object operator()(int64_t v) const { return nb::int_(v); }
    nb::object operator()(double v) const { return nb::float_(v); }
    nb::object operator()(const std::string& v) const { return nb::cast(v); }
    nb::object operator()(const std::vector<int64_t>& v) const { return nb::cast(v); }
    nb::object operator()(const std::vector<double>& v) const { return nb::cast(v); }
    nb::object operator()(DType v) const { return nb::cast(std::string(to_string(v))); }
    nb::object operator()(const Tensor& v) const { return to_numpy(v); }
    nb::object operator()(const GraphRef& v) const { return v ? nb::cast(Graph(*v)) : nb::none(); }
  };
  return std::visit(Visitor{}, value);
}

// The samples of the registry, for tests: name, arrays are made by the caller from dtype, dims, fill and limit.
nb::list samples(const std::string& op) {
  const OpDef* def = ops::registry().find(op);
  if (def == nullptr) throw nb::value_error(("'" + op + "' is no registered op").c_str());
  constexpr const char* kFills[] = {"normal", "uniform01", "positive", "indices", "bool", "probabilities"};
  nb::list out;
  for (const Sample& s : def->samples.value) {
    Builder builder(ops::registry());
    std::vector<Expr> inputs;
    nb::list specs;
    for (size_t i = 0; i < s.inputs.size(); ++i) {
      inputs.push_back(builder.input("x" + std::to_string(i), s.inputs[i].type));
      specs.append(nb::make_tuple(std::string(to_string(s.inputs[i].type.dtype)), s.inputs[i].type.dims, kFills[static_cast<int>(s.inputs[i].fill)], s.inputs[i].limit));
    }
    const std::vector<Expr> results = builder.emit(op, inputs, s.attrs);
    for (size_t i = 0; i < results.size(); ++i) builder.output("y" + std::to_string(i), results[i]);
    const Graph graph = unwrap(builder.finish());
    nb::dict attrs;
    for (const auto& [name, value] : graph.nodes()[graph.nodes().size() - 1].attrs) attrs[name.c_str()] = attr_to_python(value);
    out.append(nb::make_tuple(s.name, specs, attrs, s.tolerance, graph));
  }
  return out;
}

// A model of the zoo with its training step: what a loop of one's own needs.
class Step {
 public:
  Step(const std::string& model, const Dims& input, int64_t classes, const std::map<std::string, std::string>& parameters, int64_t batch,
       const std::string& optimizer, double momentum, bool nesterov, double weight_decay, double clip_norm)
      : model_(unwrap(models::create(model, {input, classes}, parameters))), state_(*model_, 0) {
    train::StepOptions options;
    options.optimizer.name = optimizer;
    options.optimizer.momentum = momentum;
    options.optimizer.nesterov = nesterov;
    options.optimizer.weight_decay = weight_decay;
    options.clip_norm = clip_norm;
    Dims x = input;
    x.insert(x.begin(), batch);
    const Graph graph = unwrap(train::training_graph(*model_, {DType::kF32, x}, {DType::kI64, {batch}}, options));
    program_ = unwrap(backends::cpu::CpuBackend().compile(graph, {}));
    state_.prepare(program_->graph());
  }
  double run(const Array& x, const Array& y, double learning_rate) {
    const std::map<std::string, Tensor> data{{"x", to_tensor(x)}, {"y", to_tensor(y)}, {"learning_rate", Tensor::scalar(DType::kF32, learning_rate)},
                                             {"step", Tensor::scalar(DType::kF32, static_cast<double>(++steps_))}};
    Result<std::vector<Tensor>> out = [&] {
      nb::gil_scoped_release release;
      return state_.run(*program_, data);
    }();
    return unwrap(std::move(out))[program_->graph().find_output("loss")].at(0);
  }
  // Arrays share the step's memory: writing to them sets the state.
  nb::dict state() const {
    nb::dict out;
    for (const auto& [name, tensor] : state_.tensors()) out[name.c_str()] = to_numpy(tensor);
    return out;
  }

 private:
  nn::ModulePtr model_;
  train::StateStore state_;
  std::shared_ptr<const runtime::Program> program_;
  int64_t steps_ = 0;
};

}  // namespace

NB_MODULE(_core, m) {
  m.def("set_num_threads", &set_num_threads, nb::arg("n"));
  m.def("num_threads", &num_threads);
  m.def("isa", &backends::cpu::isa_name);
  m.def("op_names", [] { return ops::registry().names(); });
  m.def("samples", &samples, nb::arg("op"));
  nb::class_<Graph>(m, "Graph", "An immutable program in SSA form.")
      .def(nb::init<>())
      .def("__str__", [](const Graph& g) { return print(g); })
      .def_static("parse", [](const std::string& text) { return unwrap(parse(text, ops::registry())); }, nb::arg("text"))
      .def("evaluate_reference", [](const Graph& g, const std::vector<Array>& arrays) {
        std::vector<RefTensor> inputs;
        for (const Tensor& t : to_tensors(arrays)) {
          RefTensor& r = inputs.emplace_back(t.type());
          for (size_t i = 0; i < r.data.size(); ++i) r.data[i] = t.at(static_cast<int64_t>(i));
        }
        std::vector<Tensor> out;
        for (const RefTensor& r : unwrap(ops::evaluate_reference(g, inputs))) out.push_back(Tensor::from<double>(DType::kF64, r.dims, r.data));
        return to_list(out);
      }, nb::arg("inputs"), "Runs the ops' reference kernels in double precision; returns float64 arrays.");
  nb::class_<runtime::Program>(m, "Program", "A compiled graph.")
      .def("run", [](const runtime::Program& p, const std::vector<Array>& arrays) {
        const std::vector<Tensor> inputs = to_tensors(arrays);
        Result<std::vector<Tensor>> out = [&] {
          nb::gil_scoped_release release;
          return p.run(inputs);
        }();
        return to_list(unwrap(std::move(out)));
      }, nb::arg("inputs"), "Runs on arrays in the order of the graph's inputs; state arrays are updated in place.")
      .def_prop_ro("graph", &runtime::Program::graph)
      .def_prop_ro("arena_bytes", &runtime::Program::arena_bytes);
  m.def("compile", [](const Graph& g) { return std::const_pointer_cast<runtime::Program>(unwrap(backends::cpu::CpuBackend().compile(g, {}))); },
        nb::arg("graph"), nb::call_guard<nb::gil_scoped_release>());
  nb::class_<Step>(m, "Step", "A zoo model's training step: forward, loss, backward, clipping, update in one program.")
      .def(nb::init<const std::string&, const Dims&, int64_t, const std::map<std::string, std::string>&, int64_t, const std::string&, double, bool, double, double>(),
           nb::arg("model"), nb::arg("input"), nb::arg("classes"), nb::arg("parameters"), nb::arg("batch"), nb::arg("optimizer"),
           nb::arg("momentum") = 0.0, nb::arg("nesterov") = false, nb::arg("weight_decay") = 0.0, nb::arg("clip_norm") = 0.0)
      .def("run", &Step::run, nb::arg("x"), nb::arg("y"), nb::arg("learning_rate"), "One update; returns the loss before it.")
      .def("state", &Step::state);
}
