// The extension module: arrays, graphs, programs and training steps. Errors become Python exceptions with the same
// message; the interpreter's lock is released while programs compile and run.
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "backends/builtin/register.h"
#include "base/fork.h"
#include "base/threads.h"
#include "base/version.h"
#include "binding.h"
#include "graph/builder.h"
#include "graph/text.h"
#include "ops/interpreter.h"
#include "ops/registry.h"
#include "runtime/backend.h"

using namespace deepseek;
using namespace deepseek::graph;
using namespace deepseek::python;

namespace {

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
      specs.append(nb::make_tuple(std::string(to_string(s.inputs[i].type.dtype)), s.inputs[i].type.dims,
                                  kFills[static_cast<int>(s.inputs[i].fill)], s.inputs[i].limit));
    }
    const std::vector<Expr> results = builder.emit(op, inputs, s.attrs);
    for (size_t i = 0; i < results.size(); ++i) builder.output("y" + std::to_string(i), results[i]);
    const Graph graph = unwrap(builder.finish());
    nb::dict attrs;
    for (const auto& [name, value] : graph.nodes()[graph.nodes().size() - 1].attrs)
      attrs[name.c_str()] = attr_to_python(value);
    out.append(nb::make_tuple(s.name, specs, attrs, s.tolerance, graph));
  }
  return out;
}

// What the registry says of an op: the source of Python signatures and docstrings.
nb::dict op_record(const std::string& op) {
  const OpDef* def = ops::registry().find(op);
  if (def == nullptr) throw nb::value_error(("'" + op + "' is no registered op").c_str());
  const auto operands = [](const std::vector<OperandSpec>& specs) {
    nb::list out;
    for (const OperandSpec& spec : specs) {
      nb::dict d;
      d["name"] = spec.name;
      d["doc"] = spec.doc;
      d["optional"] = spec.optional;
      d["variadic"] = spec.variadic;
      out.append(d);
    }
    return out;
  };
  nb::dict record;
  record["doc"] = def->doc.value;
  record["inputs"] = operands(def->inputs.value);
  record["outputs"] = operands(def->outputs.value);
  nb::list attrs;
  for (const AttrSpec& spec : def->attrs) {
    nb::dict d;
    d["name"] = spec.name;
    d["doc"] = spec.doc;
    d["kind"] = std::string(to_string(spec.kind));
    if (spec.default_value) d["default"] = attr_to_python(*spec.default_value);
    attrs.append(d);
  }
  record["attrs"] = attrs;
  return record;
}

}  // namespace

NB_MODULE(_core, m) {
  // A step holds the loss function, whose globals hold the step: such a circle is alive when the interpreter ends, and
  // a user need not hear of it.
  nb::set_leak_warnings(false);
  m.attr("version") = version();
  backends::builtin::register_backends();
  bind_trace(m);
  bind_structure(m);
  bind_layers(m);
  bind_files(m);
  bind_calls(m);
  bind_data(m);
  bind_profile(m);
  bind_step(m);
  bind_trainer(m);
  bind_session(m);
  watch_the_end();
  survive_forks();
  m.def(
      "set_num_threads", [](int64_t n) { check(set_num_threads(n)); }, nb::arg("n"),
      "How many threads compute, in all threads of this process.");
  m.def("num_threads", &num_threads);
  m.def(
      "devices",
      [] {
        nb::dict devices;
        for (const runtime::BackendEntry& entry : runtime::registered_backends()) {
          const Result<runtime::BackendPtr> device = runtime::open_backend(entry.name);
          nb::dict about;
          about["doc"] = entry.doc;
          about["usable"] = device.ok();
          if (device.ok()) {
            about["memory_bytes"] = (*device)->memory_bytes();
            for (const auto& [name, value] : (*device)->properties()) about[name.c_str()] = value;
          } else {
            about["reason"] = device.status().message();
          }
          devices[entry.name.c_str()] = about;
        }
        return devices;
      },
      "What can run models here, by the name that `device=` takes: a dict of properties each, with the reason where one "
      "is not usable.");
  m.def(
      "isa",
      [] {
        const auto properties = unwrap(runtime::open_backend(runtime::kDefaultDevice))->properties();
        const auto isa = properties.find("isa");
        return isa == properties.end() ? std::string() : isa->second;
      },
      "The set of instructions that the CPU's kernels use.");
  m.def(
      "measure_peak",
      [](const std::string& device) {
        const runtime::BackendPtr backend = unwrap(runtime::open_backend(device));
        const runtime::Peak peak = without_gil([&] { return backend->measure_peak(); });
        return std::map<std::string, double>{{"flops_per_second", peak.flops}, {"bytes_per_second", peak.bytes}};
      },
      nb::arg("device") = std::string(runtime::kDefaultDevice),
      "What the threads reach together in f32 multiply-adds and in memory; takes a fraction of a second.");
  m.def("op_names", [] { return ops::registry().names(); });
  m.def("op_record", &op_record, nb::arg("op"));
  m.def("samples", &samples, nb::arg("op"));
  nb::class_<Graph>(m, "Graph", "An immutable program in SSA form.")
      .def("__init__", [](Graph* g) { new (g) Graph(unwrap(Builder(ops::registry()).finish())); })
      .def("__str__", [](const Graph& g) { return print(g); })
      .def_prop_ro("input_names",
                   [](const Graph& g) {
                     std::vector<std::string> names;
                     for (const Input& input : g.inputs()) names.push_back(input.name);
                     return names;
                   })
      .def_static(
          "parse", [](const std::string& text) { return unwrap(parse(text, ops::registry())); }, nb::arg("text"))
      .def(
          "evaluate_reference",
          [](const Graph& g, const std::vector<Array>& arrays) {
            std::vector<RefTensor> inputs;
            for (const Array& array : arrays) {
              const Tensor t = to_tensor(array);
              RefTensor& r = inputs.emplace_back(t.type());
              for (size_t i = 0; i < r.data.size(); ++i) r.data[i] = t.at(static_cast<int64_t>(i));
            }
            std::vector<Tensor> out;
            for (const RefTensor& r : unwrap(ops::evaluate_reference(g, inputs)))
              out.push_back(Tensor::from<double>(DType::kF64, r.dims, r.data));
            return to_list(out);
          },
          nb::arg("inputs"), "Runs the ops' reference kernels in double precision; returns float64 arrays.");
  nb::class_<runtime::Program>(m, "Program", "A compiled graph.")
      .def(
          "run",
          [](const runtime::Program& p, const std::vector<Array>& arrays) {
            const std::vector<Tensor> inputs = to_inputs(p.graph(), arrays);
            return to_list(unwrap(without_gil([&] { return p.run(inputs); })));
          },
          nb::arg("inputs"), "Runs on arrays in the order of the graph's inputs; state arrays are updated in place.")
      .def(
          "profile",
          [](const runtime::Program& p, const std::vector<Array>& arrays) {
            const std::vector<Tensor> inputs = to_inputs(p.graph(), arrays);
            runtime::Profile profile;
            unwrap(without_gil([&] { return p.run(inputs, &profile); }));
            return to_list(p, profile);
          },
          nb::arg("inputs"),
          "Runs as run() does; returns one dict per node: scope, op, implementation, types, refusals, seconds, flops.")
      .def_prop_ro("graph", &runtime::Program::graph)
      .def_prop_ro("input_names",
                   [](const runtime::Program& p) {
                     std::vector<std::string> names;
                     for (const Input& input : p.graph().inputs()) names.push_back(input.name);
                     return names;
                   })
      .def_prop_ro("arena_bytes", &runtime::Program::arena_bytes)
      .def_prop_ro("memory_bytes", &runtime::Program::memory_bytes)
      .def_prop_ro("notes", &runtime::Program::notes);
  m.def(
      "compile",
      [](const Graph& g, const std::map<std::string, Array>& constants, bool measure_kernels,
         const std::string& device) {
        runtime::CompileOptions options;
        options.measure_kernels = measure_kernels;
        for (const auto& [name, array] : constants) options.constants.emplace(name, to_tensor(array));
        const runtime::BackendPtr backend = unwrap(runtime::open_backend(device));
        return std::const_pointer_cast<runtime::Program>(
            unwrap(without_gil([&] { return backend->compile(g, options); })));
      },
      nb::arg("graph"), nb::arg("constants") = std::map<std::string, Array>(), nb::arg("measure_kernels") = false,
      nb::arg("device") = std::string(runtime::kDefaultDevice),
      "`constants`: inputs by name that keep these values in every run, and are no inputs of the program.");
}
