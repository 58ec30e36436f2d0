// The compiled training step from Python: a loop of one's own.
#include "train/step.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include "runtime/module_cache.h"
#include "train/evaluate.h"
#include "train/precision.h"
#include "train/step_options.h"
#include "training.h"

namespace deepseek::python {

using namespace graph;

namespace {

// A loop of one's own: forward, loss, backward, clipping and update as one program per batch type.
class Step {
 public:
  Step(nn::ModulePtr model, nb::object loss, const Settings& settings)
      : model_(std::move(model)),
        options_(read_options(settings)),
        settings_(settings),
        watch_(loss),
        loss_(python_loss(loss, paired_)),
        backend_(unwrap(runtime::open_backend(options_.device))),
        state_(*model_, static_cast<uint64_t>(options_.train.seed), backend_),
        rate_(options_.optimizer.rate()) {
    backend_->set_memory_limit(unwrap(options_.memory.budget(backend_->memory_bytes())));
  }

  nb::list profile(nb::handle x, nb::handle y) {
    const Turn turn(mutex_);
    runtime::Profile profile;
    run(x, y, &profile);
    return to_list(*program_, profile);
  }

  double run(nb::handle x, nb::handle y, runtime::Profile* profile = nullptr) {
    GivenBatch batch = to_batch(*model_, x, y);
    const Turn turn(mutex_);
    *paired_ = !batch.named;
    watch_.look(*model_);
    outputs_.clear();  // their memory is free for these, unless somebody else holds it
    const std::vector<Tensor> values = unwrap(without_gil([&]() -> Result<std::vector<Tensor>> {
      DS_ASSIGN(program_, program(batch));
      batch.tensors[train::kLearningRate] = Tensor::scalar(DType::kF32, rate_);
      batch.tensors[train::kStepNumber] = Tensor::scalar(DType::kF32, static_cast<double>(steps_ + 1));
      return state_.run(program_, batch.tensors, false, profile);
    }));
    ++steps_;
    const Graph& graph = program_->graph();
    outputs_ = train::named_outputs(graph, values);
    terms_.clear();
    for (const auto& [name, index] : train::outputs_after(graph, train::kLossTerms)) terms_[name] = values[index].at(0);
    norm_ = values[static_cast<size_t>(graph.find_output("gradient_norm"))].at(0);
    return values[static_cast<size_t>(graph.find_output(train::kLoss))].at(0);
  }

  // Arrays share the step's memory: writing to them sets the state.
  nb::dict state() {
    const Turn turn(mutex_);
    unwrap(without_gil([&] { return state_.download(); }));
    nb::dict out;
    for (const auto& [name, tensor] : state_.tensors()) out[name.c_str()] = to_numpy(tensor);
    return out;
  }
  // For pickling: what the constructor takes, and what the steps so far made of it.
  nb::tuple made_of() const { return nb::make_tuple(model_, watch_.loss(), settings_); }
  nb::tuple progress() {
    const Turn turn(mutex_);
    return nb::make_tuple(state(), rate_, steps_);
  }
  void restore(const std::map<std::string, Array>& state, double rate, int64_t steps) {
    for (const auto& [name, array] : state) unwrap(state_.put(name, to_tensor(array)));
    rate_ = rate;
    steps_ = steps;
  }
  Graph graph() const {
    const Turn turn(mutex_);
    if (!program_) throw nb::value_error("the step has no graph before its first batch; call it once");
    return program_->graph();
  }
  size_t memory_bytes() const {
    const Turn turn(mutex_);
    return program_ ? program_->memory_bytes() : 0;
  }
  std::vector<std::string> notes() const {
    const Turn turn(mutex_);
    return program_ ? program_->notes() : std::vector<std::string>();
  }
  nb::object prediction() const {
    const Turn turn(mutex_);
    return outputs_.empty() ? nb::none() : to_python(outputs_);
  }
  std::map<std::string, double> loss_terms() const { return get(terms_); }
  double gradient_norm() const { return get(norm_); }
  double learning_rate() const { return get(rate_); }
  void set_learning_rate(double rate) { set(rate_, rate); }
  int64_t steps() const { return get(steps_); }
  void set_steps(int64_t steps) { set(steps_, steps); }

 private:
  template <class T>
  T get(const T& value) const {
    const Turn turn(mutex_);
    return value;
  }
  template <class T>
  void set(T& value, T to) {
    const Turn turn(mutex_);
    value = to;
  }
  Result<std::shared_ptr<const runtime::Program>> program(const GivenBatch& batch) {
    const bool changed = [&] {
      const ContentsPass pass;
      return structure_.update(*model_);
    }();
    if (changed) state_.follow(*model_);
    const auto compile = [&]() -> Result<runtime::ModuleCache::Got> {
      train::LossFunction loss = loss_;
      if (!loss) {
        std::vector<data::Field> targets;
        for (const data::BatchEntry& e : batch.type)
          if (e.role == data::Role::kTarget) targets.push_back({e.name, e.role, e.type, {}, {}, {}});
        DS_ASSIGN(loss, train::loss_of_targets(options_.loss.name, options_.loss.params, targets));
      }
      if (!precision_) {
        DS_ASSIGN(const train::PrecisionChoice choice,
                  train::choose_precision(options_, backend_, *model_, state_, loss, batch.type, batch.tensors));
        precision_ = choice.precision;
      }
      DS_ASSIGN(const Graph graph,
                train::training_graph(*model_, batch.type, train::step_options(options_, loss, *precision_),
                                      train::StepKind::kUpdate, &traces_));
      DS_ASSIGN(const runtime::CompileOptions how, train::compile_options(options_, *backend_));
      return runtime::ModuleCache::shared().get(*backend_, graph, how);
    };
    const std::string key = data::to_string(batch.type) + structure_.key();
    DS_ASSIGN(runtime::ModuleCache::Entry program, programs_.get(key, compile));
    if (changed || program != program_) DS_TRY(state_.prepare(program->graph()));
    return program;
  }

  nn::ModulePtr model_;
  train::TrainerOptions options_;
  Settings settings_;
  LossWatch watch_;
  std::shared_ptr<bool> paired_ = std::make_shared<bool>(true);
  train::LossFunction loss_;
  runtime::BackendPtr backend_;
  train::StateStore state_;
  runtime::CacheView<> programs_;
  nn::Structure structure_;
  train::ForwardTraces traces_;
  std::optional<DType> precision_;  // once the first batch is there
  std::shared_ptr<const runtime::Program> program_;
  data::Batch outputs_;  // of the last step
  std::map<std::string, double> terms_;
  double rate_, norm_ = 0;
  int64_t steps_ = 0;
  mutable Turn::Mutex mutex_;  // whose turn it is
};

}  // namespace

void bind_step(nb::module_& m) {
  nb::class_<Step>(
      m, "Step",
      "One compiled training step: step(x, y), or step(batch) of a dict of arrays by name, updates the model and "
      "returns the loss.")
      .def(nb::init<nn::ModulePtr, nb::object, const Settings&>(), nb::arg("model"), nb::arg("loss").none(),
           nb::arg("settings"))
      .def(
          "__call__", [](Step& s, nb::object x, nb::object y) { return s.run(x, y); }, nb::arg("x"),
          nb::arg("y") = nb::none())
      .def(
          "profile", [](Step& s, nb::object x, nb::object y) { return s.profile(x, y); }, nb::arg("x"),
          nb::arg("y") = nb::none(),
          "One more step; returns one dict per node: scope, op, implementation, types, refusals, seconds, flops.")
      .def("_made_of", &Step::made_of)
      .def("_progress", &Step::progress)
      .def("state", &Step::state, "Parameters, moments and counters by name, over the step's memory.")
      .def_prop_ro("graph", &Step::graph, "The step's graph as it runs, of the last batch's shape.")
      .def_prop_ro("memory_bytes", &Step::memory_bytes,
                   "What a step of the last batch's shape takes; 0 before the first.")
      .def_prop_ro("notes", &Step::notes, "What compilation did to the step that a user should know, in sentences.")
      .def_prop_ro("prediction", &Step::prediction,
                   "The model's output in the last step, before its update; a dict where it has several.")
      .def_prop_ro("loss_terms", &Step::loss_terms, "By name, of the last step, where the loss has several terms.")
      .def_prop_ro("gradient_norm", &Step::gradient_norm,
                   "L2 norm over all gradients of the last step, before clipping.")
      .def_prop_rw("learning_rate", &Step::learning_rate, &Step::set_learning_rate)
      .def_prop_rw("steps", &Step::steps, &Step::set_steps, "Updates done; Adam's bias correction counts them.");
  m.def(
      "restored_step",
      [](nn::ModulePtr model, nb::object loss, const Settings& settings, const std::map<std::string, Array>& state,
         double rate, int64_t steps) {
        auto step = std::make_unique<Step>(std::move(model), std::move(loss), settings);
        step->restore(state, rate, steps);
        return step;
      },
      nb::arg("model"), nb::arg("loss").none(), nb::arg("settings"), nb::arg("state"), nb::arg("rate"),
      nb::arg("steps"), "A pickled Step.");
}

}  // namespace deepseek::python
