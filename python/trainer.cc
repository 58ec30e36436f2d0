// Trainer from Python: the whole job, with callbacks. The options are those of train/run_options.h, by the same names.
#include "train/trainer.h"

#include <nanobind/stl/function.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "base/progress.h"
#include "training.h"

namespace deepseek::python {

using namespace graph;

namespace {

nb::dict to_dict(const train::NamedValues& values) {
  nb::dict out;
  for (const auto& [name, value] : values) out[name.c_str()] = value;
  return out;
}

nb::dict to_dict(const train::EpochRecord& r) {
  nb::dict epoch;
  epoch["epoch"] = r.epoch;
  epoch["seconds"] = r.seconds;
  epoch["learning_rate"] = r.learning_rate;
  epoch["training"] = to_dict(r.training);
  epoch["validation"] = to_dict(r.validation);
  return epoch;
}

class PyTrainer {
 public:
  PyTrainer(nn::ModulePtr model, nb::object loss, const Settings& settings)
      : model_(std::move(model)), watch_(loss), loss_(python_loss(loss, paired_)), settings_(settings) {
    configure({});
  }
  const Settings& settings() const { return settings_; }

  // Later settings replace earlier ones of the same name.
  void configure(const Settings& settings) {
    const Turn turn(mutex_);
    for (const auto& [path, value] : settings) settings_[path] = value;
    trainer_ = std::make_unique<train::Trainer>(model_, read_options(settings_), loss_);
  }

  nb::list fit(const Samples& train, const Samples* validation, bool resume,
               std::function<void(const std::string&)> write, bool terminal, nb::object callback) {
    const Turn turn(mutex_);
    *paired_ = train.paired;
    watch_.look(*model_);
    std::optional<nb::python_error> raised;
    bool open = true;
    // A full disk or a closed stream ends the reports, not the training.
    const auto show = [&](const std::string& text) {
      if (!open) return;
      try {
        write(text);
      } catch (nb::python_error& error) {
        open = false;
        if (!error.matches(PyExc_OSError) && !error.matches(PyExc_ValueError)) raised.emplace(std::move(error));
      }
    };
    ProgressBar bar("samples", terminal, show);
    train::Hooks hooks;
    hooks.message = [&](const std::string& text) {
      const Acquired gil;
      bar.clear();
      show(text + "\n");
    };
    hooks.progress = [&](const train::StepReport& r) {
      const Acquired gil;
      bar.update(r.step, r.first, r.total, r.samples, r.text);
      // Ctrl-C, or what another handler of the user raised: save first, raise after.
      if (PyErr_CheckSignals() != 0) raised.emplace();
      return !raised.has_value() && !is_ending();
    };
    hooks.epoch = [&](const train::EpochRecord& record, double) -> Result<bool> {
      const Acquired gil;
      if (raised || callback.is_none()) return !raised;
      try {
        callback(to_dict(record));
        watch_.look(*model_);
      } catch (nb::python_error& error) {
        raised.emplace(std::move(error));
      }
      return !raised;
    };
    Result<train::FitResult> result = without_gil(
        [&] { return trainer_->fit(train.data, validation == nullptr ? nullptr : validation->data, resume, hooks); });
    bar.clear();
    if (raised) throw nb::python_error(std::move(*raised));
    nb::list history;
    for (const train::EpochRecord& r : unwrap(std::move(result)).history) history.append(to_dict(r));
    return history;
  }

  nb::dict evaluate(const Samples& samples) {
    const Turn turn(mutex_);
    *paired_ = samples.paired;
    watch_.look(*model_);
    const train::Evaluation e = unwrap(without_gil([&] { return trainer_->evaluate(samples.data); }));
    nb::dict out;
    out["loss"] = e.loss;
    for (const auto* part : {&e.terms, &e.metrics})
      for (const auto& [name, value] : *part) out[name.c_str()] = value;
    nb::dict confusions;
    for (const train::MetricSet::Confusion& c : e.confusions)
      confusions[c.target.c_str()] =
          to_numpy(Tensor::from<int64_t>(DType::kI64, {c.classes, c.classes}, std::span<const int64_t>(c.counts)));
    if (e.confusions.size() == 1)
      out["confusion"] = confusions[e.confusions[0].target.c_str()];
    else if (!e.confusions.empty())
      out["confusion"] = confusions;
    return out;
  }

  explain::StepProfile profile(const Samples& train, int64_t steps, int64_t warmup) {
    const Turn turn(mutex_);
    *paired_ = train.paired;
    watch_.look(*model_);
    return unwrap(without_gil([&] { return trainer_->profile(train.data, {.warmup = warmup, .steps = steps}); }));
  }

  void save(const std::string& path) {
    const Turn turn(mutex_);
    watch_.look(*model_);
    unwrap(without_gil([&] { return trainer_->save(path); }));
  }

  nb::object predict(const std::map<std::string, Array>& inputs) {
    data::Batch batch;
    for (const auto& [name, array] : inputs) batch[name] = to_tensor(array);
    const Turn turn(mutex_);
    return to_python(unwrap(without_gil([&] { return trainer_->predict(batch); })));
  }

 private:
  nn::ModulePtr model_;
  LossWatch watch_;
  std::shared_ptr<bool> paired_ = std::make_shared<bool>(true);
  train::LossFunction loss_;
  Settings settings_;
  std::unique_ptr<train::Trainer> trainer_;
  Turn::Mutex mutex_;  // whose turn it is
};

}  // namespace

void bind_trainer(nb::module_& m) {
  m.def("trainer_options", [] {
    train::TrainerOptions options;
    options.train.output = "";
    nb::list out;
    for (const OptionTable::Record& r : train::option_table(options).records())
      out.append(nb::make_tuple(r.path, r.value, r.doc, r.expected));
    return out;
  });
  m.def("run_history", [](const std::string& folder) {
    std::map<std::string, Tensor> tensors;
    train::Progress progress;
    unwrap(train::load_checkpoint(folder + "/last.safetensors", tensors, progress)
               .note("is '" + folder + "' a run folder?"));
    nb::list history;
    for (const train::EpochRecord& r : progress.history) history.append(to_dict(r));
    return history;
  });
  nb::class_<PyTrainer>(m, "Trainer")
      .def(nb::init<nn::ModulePtr, nb::object, const Settings&>(), nb::arg("model"), nb::arg("loss").none(),
           nb::arg("settings"))
      .def("configure", &PyTrainer::configure)
      .def_prop_ro("settings", &PyTrainer::settings)
      .def("fit", &PyTrainer::fit, nb::arg("train"), nb::arg("validation").none(), nb::arg("resume"), nb::arg("write"),
           nb::arg("terminal"), nb::arg("callback").none())
      .def("evaluate", &PyTrainer::evaluate)
      .def("profile", &PyTrainer::profile, nb::arg("data"), nb::arg("steps"), nb::arg("warmup"))
      .def("predict", &PyTrainer::predict)
      .def("save", &PyTrainer::save, nb::arg("path"));
}

}  // namespace deepseek::python
