// Feature synthesis in the extension module `_tables`.
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "capsules.h"
#include "features/synthesis.h"

namespace nb = nanobind;

namespace deepseek::python {

using namespace deepseek::features;

namespace {

NamedTables tables_of(const std::map<std::string, nb::object>& streams) {
  NamedTables tables;
  for (const auto& [name, stream] : streams) tables[name] = from_capsule(stream);
  return tables;
}

// Tables of one column, or None.
Instances instances_of(nb::handle rows, nb::handle cutoffs) {
  Instances instances;
  if (!rows.is_none()) instances.rows = from_capsule(rows)->column(0);
  if (!cutoffs.is_none()) instances.cutoffs = from_capsule(cutoffs)->column(0);
  return instances;
}

// Asks Python for pending signals and tells it how far the work is.
std::function<Status(double)> progress_of(nb::handle callback) {
  return [callback](double done) -> Status {
    const Acquired gil;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
    if (!callback.is_none()) callback(done);
    return {};
  };
}

}  // namespace

void bind_features(nb::module_& m) {
  m.def("primitives", [] {
    nb::list list;
    for (const Primitive& p : primitives()) {
      nb::dict parameters;
      for (const Parameter& parameter : p.parameters) {
        if (parameter.choices.empty())
          parameters[parameter.name.c_str()] = parameter.value;
        else
          parameters[parameter.name.c_str()] = parameter.choices[static_cast<size_t>(parameter.value)];
      }
      list.append(nb::make_tuple(p.name, p.aggregation ? "aggregation" : "transform", p.doc, parameters));
    }
    return list;
  });
  nb::class_<Synthesis>(m, "Synthesis")
      .def_static(
          "parse",
          [](const std::string& yaml, const std::string& where) {
            return Synthesis(unwrap(without_gil([&] { return SynthesisConfig::parse(yaml, where); })));
          },
          nb::arg("yaml"), nb::arg("where"))
      .def_static(
          "load",
          [](const std::filesystem::path& path) {
            return unwrap(without_gil([&] { return Synthesis::load(path.string()); }));
          },
          nb::arg("path"))
      .def(
          "save", [](const Synthesis& s, const std::filesystem::path& path) { check(s.save(path.string())); },
          nb::arg("path"))
      .def_prop_ro("fitted", &Synthesis::fitted)
      .def_prop_ro("features", &Synthesis::features)
      .def_prop_ro("target", [](const Synthesis& s) { return s.config().options.target; })
      .def(
          "fit",
          [](Synthesis& s, const std::map<std::string, nb::object>& streams) {
            const NamedTables tables = tables_of(streams);
            unwrap(without_gil([&] { return s.fit(tables); }));
          },
          nb::arg("tables"))
      .def(
          "estimate",
          [](const Synthesis& s, const std::map<std::string, nb::object>& streams, nb::handle rows,
             nb::handle cutoffs) {
            const NamedTables tables = tables_of(streams);
            const Instances instances = instances_of(rows, cutoffs);
            const Estimate e = unwrap(without_gil([&] { return s.estimate(tables, instances); }));
            return nb::make_tuple(e.features, e.rows, e.result_bytes, e.working_bytes, e.seconds, e.text());
          },
          nb::arg("tables"), nb::arg("rows").none(), nb::arg("cutoffs").none())
      .def(
          "transform",
          [](const Synthesis& s, const std::map<std::string, nb::object>& streams, nb::handle rows, nb::handle cutoffs,
             nb::handle progress) {
            const NamedTables tables = tables_of(streams);
            const Instances instances = instances_of(rows, cutoffs);
            const auto report = progress_of(progress);
            return to_capsule(unwrap(without_gil([&] { return s.transform(tables, instances, report); })));
          },
          nb::arg("tables"), nb::arg("rows").none(), nb::arg("cutoffs").none(), nb::arg("progress").none());
}

}  // namespace deepseek::python
