// The extension module `_tune`: spaces and studies. The GIL is released in every call of a study, since another thread
// that has the study may need it: known constraints, which are Python's, take it back.
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include "errors.h"
#include "tune/pareto.h"
#include "tune/report/charts.h"
#include "tune/report/importance.h"
#include "tune/report/report.h"
#include "tune/samplers/gp.h"
#include "tune/stores/sql_store.h"
#include "tune/study.h"

namespace nb = nanobind;

namespace deepseek::python {

using namespace deepseek::tune;

namespace {

// (number, state, point, values, constraints, reports, error, worker, note, started, ended)
nb::tuple fields(const Trial& t) {
  nb::list reports;
  for (const Report& r : t.reports) reports.append(nb::make_tuple(r.step, r.value));
  return nb::make_tuple(t.number, to_string(t.state), t.point, t.values, t.constraints, reports, t.error, t.worker,
                        t.note, t.started, t.ended);
}

// What a handler of signals raised while a database was waited for.
thread_local std::optional<nb::python_error> raised;

bool signalled() {
  const Acquired gil;
  if (!raised && PyErr_CheckSignals() != 0) raised.emplace();
  return raised.has_value();
}

// What `call` gives, a Status or a Result, without the GIL; errors become exceptions.
template <class F>
auto finish(F call) {
  raised.reset();
  auto result = without_gil(call);
  if (raised) {
    nb::python_error error = std::move(*raised);
    raised.reset();
    throw error;
  }
  return unwrap(std::move(result));
}

std::unique_ptr<Study> make_study(const std::string& config, const std::string& url, const std::string& name,
                                  nb::object allowed) {
  StudyOptions options = unwrap(StudyOptions::parse(config));
  std::function<bool(const Point&)> check;
  if (!allowed.is_none()) {
    const auto held = kept(std::move(allowed));
    check = [held](const Point& point) {
      const Acquired gil;
      return nb::cast<bool>((*held)(point));
    };
  }
  if (url.empty()) {
    std::shared_ptr<Store> store = make_memory_store(config);
    return unwrap(Study::create(std::move(options), std::move(store), std::move(check)));
  }
  return finish([&] { return Study::open(std::move(options), url, name, check, signalled); });
}

}  // namespace
}  // namespace deepseek::python

NB_MODULE(_tune, m) {
  using namespace deepseek;
  using namespace deepseek::python;
  watch_the_end();
  m.def("sampler_names", sampler_names);
  m.def("pruner_names", pruner_names);
  m.def("pareto_front", pareto_front, nb::arg("losses"));
  m.def("hypervolume", hypervolume, nb::arg("losses"), nb::arg("reference"));

  // Mean and variance at rows, and the log posterior, for given hyper-parameters: for tests.
  m.def("gaussian_process", [](const std::vector<std::vector<double>>& x, const std::vector<double>& y,
                               const std::vector<bool>& choice, const std::vector<double>& log_weights,
                               double log_scale, double log_noise, const std::vector<std::vector<double>>& at) {
    const auto matrix = [&](const std::vector<std::vector<double>>& rows) {
      Eigen::MatrixXd out(static_cast<Eigen::Index>(rows.size()), static_cast<Eigen::Index>(choice.size()));
      for (size_t i = 0; i < rows.size(); ++i)
        for (size_t j = 0; j < choice.size(); ++j)
          out(static_cast<Eigen::Index>(i), static_cast<Eigen::Index>(j)) = rows[i][j];
      return out;
    };
    const auto vector = [](const std::vector<double>& v) -> Eigen::VectorXd {
      return Eigen::Map<const Eigen::VectorXd>(v.data(), static_cast<Eigen::Index>(v.size()));
    };
    const GpHyper hyper{vector(log_weights), log_scale, log_noise};
    Eigen::VectorXd mean, variance;
    GaussianProcess(matrix(x), vector(y), choice, hyper).predict(matrix(at), mean, variance);
    return std::make_tuple(
        std::vector<double>(mean.begin(), mean.end()), std::vector<double>(variance.begin(), variance.end()),
        GaussianProcess::log_posterior(matrix(x), vector(y), choice, GpPrior::of(choice), hyper, nullptr));
  });

  nb::class_<Space>(m, "Space")
      .def_static("parse", [](const std::string& json) { return unwrap(Space::parse(json)); })
      .def("to_json", &Space::to_json)
      .def("cardinality", &Space::cardinality)
      .def("names",
           [](const Space& s) {
             std::vector<std::string> names;
             for (const Parameter& p : s.parameters()) names.push_back(p.name);
             return names;
           })
      .def("kinds",
           [](const Space& s) {
             std::vector<std::string> kinds;
             for (const Parameter& p : s.parameters())
               kinds.emplace_back(p.kind == Kind::kFloat ? "float" : p.kind == Kind::kInt ? "int" : "choice");
             return kinds;
           })
      .def("text", &Space::text)
      .def("parse_point", [](const Space& s, const std::string& json) { return unwrap(s.parse_point(json)); })
      .def("check", [](const Space& s, const Point& p) { check(s.check(p)); })
      .def("grid", &Space::grid, nb::arg("levels"), nb::arg("limit"))
      .def("to_unit", [](const Space& s, const Point& p) { return s.to_unit(p); })
      .def("from_unit", [](const Space& s, const std::vector<double>& u) { return s.from_unit(u); });

  // The settings of a study that is there, as JSON.
  m.def("study_config", [](const std::string& url, const std::string& name) {
    return finish([&] { return open_sql_store(url, name, "", kPatience, signalled); })->config();
  });
  m.def("list_studies", [](const std::string& url) {
    nb::list list;
    for (const StudySummary& s : finish([&] { return list_studies(url); }))
      list.append(nb::make_tuple(s.name, s.created, s.trials, s.finished));
    return list;
  });
  m.def("delete_study",
        [](const std::string& url, const std::string& name) { finish([&] { return delete_study(url, name); }); });

  nb::class_<Study>(m, "Study")
      .def_static("make", make_study, nb::arg("config"), nb::arg("url"), nb::arg("name"), nb::arg("allowed").none())
      .def("ask",
           [](Study& s) -> nb::object {
             const std::optional<Trial> t = finish([&] { return s.ask(); });
             return t ? nb::object(fields(*t)) : nb::none();
           })
      .def("tell",
           [](Study& s, int64_t number, const std::string& state, const std::vector<double>& values,
              const std::vector<double>& constraints, const std::string& error) {
             const TrialState to = unwrap(parse_trial_state(state));
             return finish([&] { return s.tell(number, to, values, constraints, error); });
           })
      .def("report", [](Study& s, int64_t number, int64_t step,
                        double value) { return finish([&] { return s.report(number, step, value); }); })
      .def("enqueue", [](Study& s, const Point& p) { finish([&] { return s.enqueue(p); }); })
      .def("set_note",
           [](Study& s, int64_t number, const std::string& note) { finish([&] { return s.set_note(number, note); }); })
      .def("add",
           [](Study& s, const std::string& state, const Point& point, const std::vector<double>& values,
              const std::vector<double>& constraints, const std::vector<std::pair<int64_t, double>>& reports,
              const std::string& error, const std::string& worker, const std::string& note, double started,
              double ended) {
             Trial t;
             t.state = unwrap(parse_trial_state(state));
             t.point = point;
             t.values = values;
             t.constraints = constraints;
             for (const auto& [step, value] : reports) t.reports.push_back({step, value});
             t.error = error;
             t.worker = worker;
             t.note = note;
             t.started = started;
             t.ended = ended;
             finish([&] { return s.add(std::move(t)); });
           })
      .def("trials",
           [](Study& s) {
             nb::list list;
             for (const Trial& t : finish([&] { return s.trials(); })) list.append(fields(t));
             return list;
           })
      .def("trial", [](Study& s, int64_t number) { return fields(finish([&] { return s.trial(number); })); })
      .def("write_report",
           [](Study& s, const std::filesystem::path& path, const std::string& title) {
             finish([&]() -> Status {
               DS_ASSIGN(const std::vector<Trial> trials, s.trials());
               return write_report(path.string(), title, s.setting(), trials);
             });
           })
      .def("write_charts",
           [](Study& s, const std::string& folder) {
             return finish([&]() -> Result<std::vector<std::string>> {
               DS_ASSIGN(const std::vector<Trial> trials, s.trials());
               return write_charts(folder, s.setting(), trials);
             });
           })
      .def("importances",
           [](Study& s) {
             nb::list list;
             for (const Importance& i : finish([&]() -> Result<std::vector<Importance>> {
                    DS_ASSIGN(const std::vector<Trial> trials, s.trials());
                    return importances(s.setting(), trials);
                  }))
               list.append(nb::make_tuple(s.options().space[i.parameter].name, i.share, i.normalised));
             return list;
           })
      .def("best",
           [](Study& s) {
             nb::list list;
             for (const Trial& t : finish([&] { return s.best(); })) list.append(fields(t));
             return list;
           })
      .def("config", [](const Study& s) { return s.options().to_json(); })
      .def("pauses", [](const Study& s) { return s.pauses(); })
      .def("over", [](const Study& s) { return s.over(); });
}
