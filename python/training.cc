// Training from Python: data sets, the compiled step, the Trainer, metrics. The options are those of
// train/run_options.h, by the same names.
#include <nanobind/stl/function.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "base/progress.h"
#include "base/strings.h"
#include "binding.h"
#include "data/augment.h"
#include "data/augment_signals.h"
#include "data/color.h"
#include "data/sources.h"
#include "io/atomic_file.h"
#include "runtime/program_cache.h"
#include "train/precision.h"
#include "train/step_options.h"
#include "train/trainer.h"

namespace deepseek::python {

using namespace graph;

namespace {

using Settings = std::map<std::string, std::string>;  // option path to its value as YAML

train::TrainerOptions read_options(const Settings& settings) {
  train::TrainerOptions options;
  options.train.output = "";  // Python writes files only where it is told to
  OptionTable table = train::option_table(options);
  std::vector<std::string> problems;
  for (const auto& [path, value] : settings)
    if (Status s = table.set(path + "=" + value, "Trainer"); !s.ok()) problems.push_back(s.message());
  if (!problems.empty()) throw nb::value_error(join(problems, "\n").c_str());
  return options;
}

train::LossFunction python_loss(nb::object loss) {
  if (loss.is_none()) return {};
  auto held = std::shared_ptr<nb::object>(new nb::object(std::move(loss)), [](nb::object* o) {
    const nb::gil_scoped_acquire gil;
    delete o;
  });
  return [held](Expr prediction, Expr target) {
    const std::vector<Expr> out = call_traced(*held, prediction.builder(), nullptr, {prediction, target});
    if (out.size() == 1) return out[0];
    prediction.builder().fail(invalid("the loss function returned {} values, expected one scalar", out.size()));
    return prediction;
  };
}

nb::dict to_dict(double loss, const train::NamedValues& metrics) {
  nb::dict out;
  out["loss"] = loss;
  for (const auto& [name, value] : metrics) out[name.c_str()] = value;
  return out;
}
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
      : model_(std::move(model)), loss_(python_loss(std::move(loss))), settings_(settings) {
    configure({});
  }

  // Later settings replace earlier ones of the same name.
  void configure(const Settings& settings) {
    for (const auto& [path, value] : settings) settings_[path] = value;
    trainer_ = std::make_unique<train::Trainer>(model_, read_options(settings_), loss_);
  }

  nb::list fit(const data::Dataset& train, const data::Dataset* validation, bool resume,
               std::function<void(const std::string&)> write, bool terminal, nb::object callback) {
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
      const nb::gil_scoped_acquire gil;
      bar.clear();
      show(text + "\n");
    };
    hooks.progress = [&](const train::StepReport& r) {
      const nb::gil_scoped_acquire gil;
      bar.update(r.step, r.first, r.total, r.samples, r.text);
      // Ctrl-C, or what another handler of the user raised: save first, raise after.
      if (PyErr_CheckSignals() != 0) raised.emplace();
      return !raised.has_value();
    };
    hooks.epoch = [&](const train::EpochRecord& record, double) -> Result<bool> {
      const nb::gil_scoped_acquire gil;
      if (raised || callback.is_none()) return !raised;
      try {
        callback(to_dict(record));
      } catch (nb::python_error& error) {
        raised.emplace(std::move(error));
      }
      return !raised;
    };
    Result<train::FitResult> result = [&] {
      const nb::gil_scoped_release release;
      return trainer_->fit(train, validation == nullptr ? data::Dataset() : *validation, resume, hooks);
    }();
    bar.clear();
    if (raised) throw nb::python_error(std::move(*raised));
    nb::list history;
    for (const train::EpochRecord& r : unwrap(std::move(result)).history) history.append(to_dict(r));
    return history;
  }

  nb::dict evaluate(const data::Dataset& dataset) {
    Result<train::Evaluation> result = [&] {
      const nb::gil_scoped_release release;
      return trainer_->evaluate(dataset);
    }();
    const train::Evaluation e = unwrap(std::move(result));
    nb::dict out = to_dict(e.loss, e.metrics);
    if (!e.confusion.empty())
      out["confusion"] =
          to_numpy(Tensor::from<int64_t>(DType::kI64, {e.classes, e.classes}, std::span<const int64_t>(e.confusion)));
    return out;
  }

  explain::StepProfile profile(const data::Dataset& train, int64_t steps, int64_t warmup) {
    Result<explain::StepProfile> result = [&] {
      const nb::gil_scoped_release release;
      return trainer_->profile(train, {.warmup = warmup, .steps = steps});
    }();
    return unwrap(std::move(result));
  }

  NumpyArray predict(const Array& inputs) {
    const Tensor x = to_tensor(inputs);
    Result<Tensor> result = [&] {
      const nb::gil_scoped_release release;
      return trainer_->predict(x);
    }();
    return to_numpy(unwrap(std::move(result)));
  }

 private:
  nn::ModulePtr model_;
  train::LossFunction loss_;
  Settings settings_;
  std::unique_ptr<train::Trainer> trainer_;
};

// A loop of one's own: forward, loss, backward, clipping and update as one program per batch type.
class Step {
 public:
  Step(nn::ModulePtr model, nb::object loss, const Settings& settings)
      : model_(std::move(model)),
        options_(read_options(settings)),
        loss_(python_loss(std::move(loss))),
        backend_(unwrap(runtime::open_backend(options_.device))),
        state_(*model_, static_cast<uint64_t>(options_.train.seed), backend_),
        rate_(options_.optimizer.rate()) {}

  nb::list profile(const Array& inputs, const Array& targets) {
    runtime::Profile profile;
    run(inputs, targets, &profile);
    return to_list(*program_, profile);
  }

  double run(const Array& inputs, const Array& targets, runtime::Profile* profile = nullptr) {
    const Tensor x = to_tensor(inputs), y = to_tensor(targets);
    prediction_ = Tensor();  // its memory is free for this one, unless somebody else holds it
    Result<std::vector<Tensor>> out = [&]() -> Result<std::vector<Tensor>> {
      const nb::gil_scoped_release release;
      DS_ASSIGN(program_, program(x, y));
      return state_.run(program_,
                        {{"x", x},
                         {"y", y},
                         {train::kLearningRate, Tensor::scalar(DType::kF32, rate_)},
                         {train::kStepNumber, Tensor::scalar(DType::kF32, static_cast<double>(steps_ + 1))}},
                        false, profile);
    }();
    const std::vector<Tensor> values = unwrap(std::move(out));
    ++steps_;
    prediction_ = values[static_cast<size_t>(program_->graph().find_output("prediction"))];
    norm_ = values[static_cast<size_t>(program_->graph().find_output("gradient_norm"))].at(0);
    return values[static_cast<size_t>(program_->graph().find_output("loss"))].at(0);
  }

  // Arrays share the step's memory: writing to them sets the state.
  nb::dict state() {
    check(state_.download());
    nb::dict out;
    for (const auto& [name, tensor] : state_.tensors()) out[name.c_str()] = to_numpy(tensor);
    return out;
  }
  Graph graph() const {
    if (!program_) throw nb::value_error("the step has no graph before its first batch; call it once");
    return program_->graph();
  }
  size_t memory_bytes() const { return program_ ? program_->memory_bytes() : 0; }
  std::vector<std::string> notes() const { return program_ ? program_->notes() : std::vector<std::string>(); }
  std::optional<NumpyArray> prediction() const {
    if (!prediction_.defined()) return std::nullopt;
    return to_numpy(prediction_);
  }
  double gradient_norm() const { return norm_; }
  double learning_rate() const { return rate_; }
  void set_learning_rate(double rate) { rate_ = rate; }
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

 private:
  Result<std::shared_ptr<const runtime::Program>> program(const Tensor& x, const Tensor& y) {
    const auto compile = [&]() -> Result<runtime::ProgramCache::Entry> {
      train::LossFunction loss = loss_;
      if (!loss) {
        DS_ASSIGN(loss, train::make_loss(train::resolve_loss(options_.loss.name, y.dtype()), options_.loss.params));
      }
      if (!precision_) {
        DS_ASSIGN(const train::PrecisionChoice choice,
                  train::choose_precision(options_, backend_, *model_, state_, loss, x, y));
        precision_ = choice.precision;
      }
      DS_ASSIGN(const Graph graph,
                train::training_graph(*model_, x.type(), y.type(), train::step_options(options_, loss, *precision_),
                                      train::StepKind::kUpdate, &traces_));
      DS_ASSIGN(const runtime::CompileOptions how, train::compile_options(options_, *backend_));
      DS_ASSIGN(auto program, backend_->compile(graph, how));
      DS_TRY(state_.prepare(program->graph()));
      return program;
    };
    return programs_.get(to_string(x.type()) + to_string(y.type()), compile);
  }

  nn::ModulePtr model_;
  train::TrainerOptions options_;
  train::LossFunction loss_;
  runtime::BackendPtr backend_;
  train::StateStore state_;
  runtime::ProgramCache programs_;
  train::ForwardTraces traces_;
  std::optional<DType> precision_;  // once the first batch is there
  std::shared_ptr<const runtime::Program> program_;
  Tensor prediction_;
  double rate_, norm_ = 0;
  int64_t steps_ = 0;
};

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
}

}  // namespace

namespace {

void bind_augment(nb::module_& m) {
  nb::class_<data::ImageAugmenter>(m, "ImageAugmenter")
      .def_static(
          "create",
          [](std::vector<std::string> methods, std::vector<double> probabilities, double alpha, uint64_t seed,
             int64_t crop_padding, double cutout_size, double rotation, double color, int64_t ops, int64_t magnitude) {
            return unwrap(data::ImageAugmenter::create({std::move(methods), std::move(probabilities), alpha, seed,
                                                        crop_padding, cutout_size, rotation, color, ops, magnitude}));
          },
          nb::arg("methods"), nb::arg("probabilities"), nb::arg("alpha"), nb::arg("seed"), nb::arg("crop_padding"),
          nb::arg("cutout_size"), nb::arg("rotation"), nb::arg("color"), nb::arg("randaugment_ops"),
          nb::arg("randaugment_magnitude"))
      .def_prop_ro("mixes", &data::ImageAugmenter::mixes)
      .def("partners", &data::ImageAugmenter::partners, nb::arg("n"), nb::arg("epoch"))
      .def(
          "transform",
          [](const data::ImageAugmenter& a, const Array& images, bool channels_last, int64_t epoch,
             const std::vector<int64_t>& ids, const std::vector<int64_t>& partners) {
            const Tensor in = to_tensor(images);
            auto mixed = [&] {
              nb::gil_scoped_release release;
              return a.transform(in, channels_last, epoch, ids, partners);
            }();
            data::ImageAugmenter::Mixed done = unwrap(std::move(mixed));
            return nb::make_tuple(to_numpy(done.images), done.weights);
          },
          nb::arg("images"), nb::arg("channels_last"), nb::arg("epoch"), nb::arg("ids"), nb::arg("partners"));
  m.def(
      "augment_series",
      [](std::vector<std::string> methods, std::vector<double> probabilities, uint64_t seed, double jitter,
         double scaling, double window, const Array& series, int64_t epoch, const std::vector<int64_t>& ids) {
        const data::SeriesOptions options{std::move(methods), std::move(probabilities), seed, jitter, scaling, window};
        const Tensor in = to_tensor(series);
        auto out = [&] {
          nb::gil_scoped_release release;
          return data::augment_series(options, in, epoch, ids);
        }();
        return to_numpy(unwrap(std::move(out)));
      },
      nb::arg("methods"), nb::arg("probabilities"), nb::arg("seed"), nb::arg("jitter"), nb::arg("scaling"),
      nb::arg("window"), nb::arg("series"), nb::arg("epoch"), nb::arg("ids"));
  m.def(
      "augment_volumes",
      [](std::vector<std::string> methods, std::vector<double> probabilities, uint64_t seed, double displacement,
         double contrast, double brightness, int64_t grid, const Array& images, std::optional<Array> masks,
         int64_t epoch, const std::vector<int64_t>& ids) {
        const data::VolumeOptions options{
            std::move(methods), std::move(probabilities), seed, displacement, contrast, brightness, grid};
        const Tensor in = to_tensor(images), mask = masks ? to_tensor(*masks) : Tensor();
        auto out = [&] {
          nb::gil_scoped_release release;
          return data::augment_volumes(options, in, mask, epoch, ids);
        }();
        data::Volumes volumes = unwrap(std::move(out));
        std::optional<NumpyArray> moved;
        if (mask.defined()) moved = to_numpy(volumes.masks);
        return nb::make_tuple(to_numpy(volumes.images), moved);
      },
      nb::arg("methods"), nb::arg("probabilities"), nb::arg("seed"), nb::arg("displacement"), nb::arg("contrast"),
      nb::arg("brightness"), nb::arg("grid"), nb::arg("images"), nb::arg("masks").none(), nb::arg("epoch"),
      nb::arg("ids"));
  m.def(
      "change_color",
      [](const std::string& what, double amount, const Array& image) {
        Tensor in = to_tensor(image).clone();
        const graph::Dims& d = in.dims();
        if (d.size() != 3 || in.dtype() != DType::kU8) throw nb::value_error("expected a u8 image [H, W, C]");
        const data::ImageShape shape{1, d[0], d[1], d[2]};
        auto* x = in.as<uint8_t>();
        const auto factor = static_cast<float>(amount);
        if (what == "brightness") data::enhance(shape, data::Enhancement::kBrightness, factor, x);
        if (what == "contrast") data::enhance(shape, data::Enhancement::kContrast, factor, x);
        if (what == "saturation") data::enhance(shape, data::Enhancement::kSaturation, factor, x);
        if (what == "sharpness") data::enhance(shape, data::Enhancement::kSharpness, factor, x);
        if (what == "posterize") data::posterize(shape, static_cast<int>(amount), x);
        if (what == "solarize") data::solarize(shape, static_cast<int>(amount), x);
        if (what == "autocontrast") data::autocontrast(shape, x);
        if (what == "equalize") data::equalize(shape, x);
        return to_numpy(in);
      },
      nb::arg("what"), nb::arg("amount"), nb::arg("image"), "What color and randaugment are made of.");
  m.def("symmetric_beta", &data::symmetric_beta, nb::arg("alpha"), nb::arg("key"));
}

}  // namespace

void bind_training(nb::module_& m) {
  bind_profile(m);
  bind_augment(m);
  nb::class_<data::Dataset>(m, "Dataset")
      .def(
          "__init__",
          [](data::Dataset* self, const Array& inputs, const Array& targets, std::vector<std::string> class_names,
             double scale, std::vector<double> mean, std::vector<double> stddev, std::optional<int64_t> ignored) {
            new (self) data::Dataset{std::move(class_names), to_tensor(inputs), to_tensor(targets), scale,
                                     std::move(mean),        std::move(stddev)};
            self->ignored = ignored;
          },
          nb::arg("inputs"), nb::arg("targets"), nb::arg("class_names"), nb::arg("scale"), nb::arg("mean"),
          nb::arg("stddev"), nb::arg("ignore_index").none() = nb::none())
      .def("validate", [](const data::Dataset& d) { check(d.validate()); })
      .def("__len__", &data::Dataset::size)
      .def("read",
           [](const data::Dataset& d, const std::vector<int64_t>& indices) {
             Tensor x, y;
             check(d.read(indices, x, y));
             return nb::make_tuple(to_numpy(x), to_numpy(y));
           })
      .def_prop_ro("inputs",
                   [](const data::Dataset& d) {
                     if (!d.files.empty())
                       throw nb::value_error("the inputs are pictures on disk; read(indices) decodes some of them");
                     return to_numpy(d.inputs);
                   })
      .def_ro("files", &data::Dataset::files, "Paths of the pictures, where the inputs are on disk.")
      .def_prop_ro("targets", [](const data::Dataset& d) { return to_numpy(d.targets); })
      .def_ro("class_names", &data::Dataset::class_names)
      .def_ro("mean", &data::Dataset::mean)
      .def_ro("stddev", &data::Dataset::stddev)
      .def_ro("scale", &data::Dataset::scale)
      .def_ro("ignore_index", &data::Dataset::ignored, "The label of targets that do not count, if there is one.");
  m.def("open_dataset", [](const std::string& name, const std::map<std::string, std::string>& parameters) {
    data::Splits s = unwrap(data::open_dataset(name, parameters));
    return nb::make_tuple(std::move(s.train), std::move(s.validation), std::move(s.test));
  });
  m.def("dataset_names", &data::dataset_names);
  m.def("trainer_options", [] {
    train::TrainerOptions options;
    options.train.output = "";
    nb::list out;
    for (const OptionTable::Record& r : train::option_table(options).records())
      out.append(nb::make_tuple(r.path, r.value, r.doc, r.expected));
    return out;
  });
  nb::class_<PyTrainer>(m, "Trainer")
      .def(nb::init<nn::ModulePtr, nb::object, const Settings&>(), nb::arg("model"), nb::arg("loss").none(),
           nb::arg("settings"))
      .def("configure", &PyTrainer::configure)
      .def("fit", &PyTrainer::fit, nb::arg("train"), nb::arg("validation").none(), nb::arg("resume"), nb::arg("write"),
           nb::arg("terminal"), nb::arg("callback").none())
      .def("evaluate", &PyTrainer::evaluate)
      .def("profile", &PyTrainer::profile, nb::arg("data"), nb::arg("steps"), nb::arg("warmup"))
      .def("predict", &PyTrainer::predict);
  nb::class_<Step>(m, "Step", "One compiled training step: step(x, y) updates the model and returns the loss.")
      .def(nb::init<nn::ModulePtr, nb::object, const Settings&>(), nb::arg("model"), nb::arg("loss").none(),
           nb::arg("settings"))
      .def(
          "__call__", [](Step& s, const Array& x, const Array& y) { return s.run(x, y); }, nb::arg("x"), nb::arg("y"))
      .def("profile", &Step::profile, nb::arg("x"), nb::arg("y"),
           "One more step; returns one dict per node: scope, op, implementation, types, refusals, seconds, flops.")
      .def("state", &Step::state, "Parameters, moments and counters by name, over the step's memory.")
      .def_prop_ro("graph", &Step::graph, "The step's graph as it runs, of the last batch's shape.")
      .def_prop_ro("memory_bytes", &Step::memory_bytes,
                   "What a step of the last batch's shape takes; 0 before the first.")
      .def_prop_ro("notes", &Step::notes, "What compilation did to the step that a user should know, in sentences.")
      .def_prop_ro("prediction", &Step::prediction, "The model's output in the last step, before its update.")
      .def_prop_ro("gradient_norm", &Step::gradient_norm,
                   "L2 norm over all gradients of the last step, before clipping.")
      .def_prop_rw("learning_rate", &Step::learning_rate, &Step::set_learning_rate)
      .def_prop_rw("steps", &Step::steps, &Step::set_steps, "Updates done; Adam's bias correction counts them.");

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
