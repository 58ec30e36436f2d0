// Models in files from Python: sessions that run them.
#include "infer/session.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "binding.h"
#include "gil.h"
#include "predict/predictor.h"

namespace deepseek::python {

using namespace graph;

namespace {

nb::list ports(const std::vector<infer::Port>& all) {
  nb::list out;
  for (const infer::Port& port : all) {
    nb::list shape;
    for (const int64_t d : port.dims) shape.append(d < 0 ? nb::none() : nb::cast(d));
    out.append(nb::make_tuple(port.name, std::string(to_string(port.dtype)), nb::tuple(shape)));
  }
  return out;
}

// Outputs in the order asked for, by default all.
nb::list run(infer::Session& session, const std::optional<std::vector<std::string>>& outputs,
             const std::map<std::string, Array>& inputs) {
  std::map<std::string, Tensor> given;
  for (const auto& [name, array] : inputs) given[name] = to_tensor(array);
  std::vector<std::string> names = outputs.value_or(std::vector<std::string>());
  if (!outputs)
    for (const infer::Port& port : session.signature().outputs) names.push_back(port.name);
  const std::map<std::string, Tensor> results = unwrap(without_gil([&] { return session.run(given, names); }));
  nb::list out;
  for (const std::string& name : names) out.append(to_numpy(results.at(name)));
  return out;
}

// Columns by name, of raw data.
nb::dict predict(const std::shared_ptr<infer::Session>& session, const std::vector<std::string>& paths) {
  data::TablePart all;
  const Status status = without_gil([&] {
    return predict::Predictor(session).predict(paths, [&](const data::TablePart& part) -> Status {
      if (all.empty()) {
        all = part;
        return {};
      }
      for (size_t c = 0; c < part.size(); ++c)
        std::visit(
            [&]<class T>(std::vector<T>& values) {
              const auto& more = std::get<std::vector<T>>(part[c].values);
              values.insert(values.end(), more.begin(), more.end());
            },
            all[c].values);
      return {};
    });
  });
  unwrap(status);
  nb::dict out;
  for (const data::TableColumn& c : all)
    out[c.name.c_str()] = std::visit([](const auto& values) { return nb::cast(values); }, c.values);
  return out;
}

}  // namespace

void bind_session(nb::module_& m) {
  nb::class_<infer::Session>(m, "Session")
      .def_static(
          "open",
          [](const std::string& path, const std::string& device, size_t max_programs, std::vector<int64_t> warm_up,
             bool measure) {
            return unwrap(without_gil([&] {
              return infer::Session::open(path, {.device = device,
                                                 .max_programs = max_programs,
                                                 .warm_up = std::move(warm_up),
                                                 .measure_kernels = measure});
            }));
          },
          nb::arg("path"), nb::arg("device"), nb::arg("max_programs"), nb::arg("warm_up"), nb::arg("measure"))
      .def("run", &run, nb::arg("outputs").none(), nb::arg("inputs"))
      .def_prop_ro("inputs", [](const infer::Session& s) { return ports(s.signature().inputs); })
      .def_prop_ro("outputs", [](const infer::Session& s) { return ports(s.signature().outputs); })
      .def("class_names", &infer::Session::class_names, nb::arg("output"))
      .def_prop_ro("preprocessing", [](const infer::Session& s) { return s.preprocessing(); })
      .def_prop_ro("provenance", [](const infer::Session& s) { return s.provenance(); })
      .def_prop_ro("programs", &infer::Session::programs)
      .def_prop_ro("device", [](const infer::Session& s) { return std::string(s.backend().name()); });
  m.def("predict_files", &predict, nb::arg("session"), nb::arg("paths"));
  m.def("model_path", [](const std::string& path) { return unwrap(predict::model_path(path)); });
}

}  // namespace deepseek::python
