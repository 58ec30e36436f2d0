// What training is judged by, from Python: profiles of steps, metrics.
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "binding.h"
#include "explain/profile_report.h"
#include "io/atomic_file.h"
#include "train/metrics.h"

namespace deepseek::python {

void bind_profile(nb::module_& m) {
  using explain::StepProfile;
  nb::class_<StepProfile>(m, "StepProfile", "Where the time of a training step goes; print() shows it.")
      .def("__str__", [](const StepProfile& p) { return profile_text(p); })
      .def(
          "text", [](const StepProfile& p, int64_t depth, size_t nodes) { return profile_text(p, depth, nodes); },
          nb::arg("depth") = 2, nb::arg("nodes") = 12,
          "Tables and hints: layers by `depth` parts of their path, and the slowest `nodes` one by one.")
      .def(
          "to_dict",
          [](const StepProfile& p, int64_t depth) {
            return nb::cast<nb::dict>(nb::module_::import_("json").attr("loads")(profile_json(p, depth)));
          },
          nb::arg("depth") = 2, "All numbers: step_ms, waiting_ms, flops, bytes, peak, hints, by_scope, by_op, nodes.")
      .def(
          "save_trace",
          [](const StepProfile& p, const std::string& path) {
            const std::string text = chrome_trace(p);
            check(io::write_file_atomic(path, std::as_bytes(std::span(text.data(), text.size()))));
          },
          nb::arg("path"), "Writes one step for chrome://tracing or https://ui.perfetto.dev.")
      .def_prop_ro("hints", &explain::profile_hints, "What stands out, in sentences.");
  m.def("metrics", [](const std::vector<std::string>& names, const std::string& task, const Array& prediction,
                      const Array& target, std::optional<int64_t> ignored) {
    const train::Task kind = task == "binary"       ? train::Task::kBinary
                             : task == "regression" ? train::Task::kRegression
                                                    : train::Task::kMulticlass;
    train::Metrics metrics = unwrap(train::Metrics::create(names, kind, ignored));
    check(metrics.add(to_tensor(prediction), to_tensor(target)));
    nb::dict out;
    const std::vector<double> values = metrics.values();
    for (size_t i = 0; i < names.size(); ++i) out[names[i].c_str()] = values[i];
    return out;
  });
}

}  // namespace deepseek::python
