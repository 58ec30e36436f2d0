#include "train/trainer.h"

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>
#include <sstream>

#include "backends/cpu/cpu_backend.h"
#include "base/threads.h"
#include "io/atomic_file.h"
#include "io/event_file.h"
#include "io/plot.h"
#include "io/safetensors.h"
#include "models/zoo.h"

namespace deepseek::train {

using graph::Tensor;
using graph::TensorType;

namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

TensorType batch_type(const data::Dataset& d, int64_t n) {
  graph::Dims dims = d.inputs.dims();
  dims[0] = n;
  return {DType::kF32, dims};
}
TensorType target_type(const data::Dataset& d, int64_t n) {
  TensorType t = d.targets.type();
  t.dims[0] = n;
  return t;
}

StepOptions step_options(const RunOptions& o) {
  StepOptions s;
  s.optimizer = o.optimizer;
  s.clip_norm = o.optimizer.clip_norm;
  s.clip_value = o.optimizer.clip_value;
  s.loss_attrs = {{"label_smoothing", o.train.label_smoothing}};
  return s;
}

// The order of an epoch depends on the seed and the epoch only, so that a resumed run sees the same batches.
std::vector<int64_t> epoch_order(int64_t n, int64_t seed, int64_t epoch) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  std::mt19937_64 random(static_cast<uint64_t>(seed) * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(epoch));
  for (size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[random() % i]);  // std::shuffle differs by library
  return order;
}

int64_t count_correct(const Tensor& prediction, const Tensor& y) {
  const int64_t classes = prediction.dims().back(), n = prediction.num_elements() / classes;
  int64_t correct = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float* row = prediction.as<float>() + i * classes;
    correct += std::max_element(row, row + classes) - row == y.as<int64_t>()[i];
  }
  return correct;
}

Result<std::shared_ptr<const runtime::Program>> compile(Result<graph::Graph> graph) {
  DS_TRY(graph.ok() ? Status() : graph.status());
  return backends::cpu::CpuBackend().compile(*graph, {});
}

Result<std::string> read_text(const std::string& path) {
  std::ifstream file(path);
  if (!file) return make_error(ErrorCode::kNotFound, "{}: cannot be read; is it a run folder?", path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

Status write_text(const std::string& path, const std::string& text) {
  return io::write_file_atomic(path, std::as_bytes(std::span(text.data(), text.size())));
}

std::string history_csv(const std::vector<EpochRecord>& history) {
  std::string csv = "epoch,train_loss,train_accuracy,validation_loss,validation_accuracy,seconds\n";
  for (const EpochRecord& r : history)
    csv += fmt::format("{},{},{},{},{},{:.3f}\n", r.epoch, r.train_loss, r.train_accuracy, r.validation_loss,
                       r.validation_accuracy, r.seconds);
  return csv;
}

// loss.png, accuracy.png and confusion.png of the run folder.
Status draw_charts(const std::filesystem::path& folder, const std::vector<EpochRecord>& history, const Evaluation& test,
                   const std::vector<std::string>& class_names) {
  std::vector<double> epochs, train_loss, validation_loss, train_accuracy, validation_accuracy;
  for (const EpochRecord& r : history) {
    epochs.push_back(static_cast<double>(r.epoch));
    train_loss.push_back(r.train_loss);
    validation_loss.push_back(r.validation_loss);
    train_accuracy.push_back(100 * r.train_accuracy);
    validation_accuracy.push_back(100 * r.validation_accuracy);
  }
  DS_TRY(io::line_chart((folder / "loss.png").string(), "Loss", "epoch", "loss",
                        {{"training", epochs, train_loss}, {"validation", epochs, validation_loss}}));
  DS_TRY(io::line_chart((folder / "accuracy.png").string(), "Accuracy", "epoch", "accuracy in %",
                        {{"training", epochs, train_accuracy}, {"validation", epochs, validation_accuracy}}));
  return io::confusion_matrix_chart((folder / "confusion.png").string(), "Test set: true class by predicted class",
                                    class_names, test.confusion);
}

// What of a run is not a tensor, kept as text so that doubles stay exact.
struct Progress {
  int64_t step = 0;     // updates done
  double loss_sum = 0;  // of the running epoch
  int64_t correct = 0, seen = 0;
  double best = -1;
  std::vector<EpochRecord> history;
};

std::map<std::string, std::string> to_metadata(const Progress& p) {
  std::string history;
  for (const EpochRecord& r : p.history)
    history += fmt::format("{} {:a} {:a} {:a} {:a} {:a}\n", r.epoch, r.train_loss, r.train_accuracy, r.validation_loss,
                           r.validation_accuracy, r.seconds);
  return {{"step", std::to_string(p.step)},       {"loss_sum", fmt::format("{:a}", p.loss_sum)},
          {"correct", std::to_string(p.correct)}, {"seen", std::to_string(p.seen)},
          {"best", fmt::format("{:a}", p.best)},  {"history", history}};
}

Result<Progress> from_metadata(const std::map<std::string, std::string>& m, const std::string& where) {
  Progress p;
  for (const char* key : {"step", "loss_sum", "correct", "seen", "best", "history"})
    if (!m.contains(key))
      return make_error(ErrorCode::kDataCorrupt, "{}: the checkpoint lacks '{}'; it is no training checkpoint", where,
                        key);
  p.step = std::strtoll(m.at("step").c_str(), nullptr, 10);
  p.loss_sum = std::strtod(m.at("loss_sum").c_str(), nullptr);
  p.correct = std::strtoll(m.at("correct").c_str(), nullptr, 10);
  p.seen = std::strtoll(m.at("seen").c_str(), nullptr, 10);
  p.best = std::strtod(m.at("best").c_str(), nullptr);
  const char* at = m.at("history").c_str();
  while (*at != 0) {
    EpochRecord r{};
    char* end = nullptr;
    r.epoch = std::strtoll(at, &end, 10);
    for (double* field : {&r.train_loss, &r.train_accuracy, &r.validation_loss, &r.validation_accuracy, &r.seconds})
      *field = std::strtod(end, &end);
    p.history.push_back(r);
    at = *end == '\n' ? end + 1 : end + std::strlen(end);
  }
  return p;
}

Result<nn::ModulePtr> make_model(const RunOptions& o, const data::Dataset& d) {
  nn::manual_seed(static_cast<uint64_t>(o.train.seed));
  const graph::Dims& dims = d.inputs.dims();
  return models::create(o.model.name, {graph::Dims(dims.begin() + 1, dims.end()), d.num_classes()}, o.model.params);
}

}  // namespace

Result<Evaluation> evaluate(nn::Module& model, const data::Dataset& dataset, int64_t batch_size,
                            const StepOptions& step) {
  DS_TRY(dataset.validate());
  if (!dataset.is_classification()) return invalid("evaluate: expected class labels as targets");
  Evaluation result;
  result.classes = dataset.num_classes();
  result.confusion.assign(static_cast<size_t>(result.classes * result.classes), 0);
  StateStore state(model, 0);
  std::map<int64_t, std::shared_ptr<const runtime::Program>> programs;  // the last batch may be smaller
  const int64_t n = dataset.size();
  for (int64_t begin = 0; begin < n; begin += batch_size) {
    std::vector<int64_t> indices(static_cast<size_t>(std::min(batch_size, n - begin)));
    std::iota(indices.begin(), indices.end(), begin);
    const int64_t count = static_cast<int64_t>(indices.size());
    auto& program = programs[count];
    if (!program) {
      const TensorType y_type = target_type(dataset, count);
      DS_ASSIGN(program, compile(evaluation_graph(model, batch_type(dataset, count), &y_type, step)));
      state.prepare(program->graph());
    }
    Tensor x, y;
    DS_TRY(dataset.read(indices, x, y));
    DS_ASSIGN(const std::vector<Tensor> out, state.run(*program, {{"x", x}, {"y", y}}));
    const Tensor& prediction = out[program->graph().find_output("prediction")];
    result.loss += out[program->graph().find_output("loss")].at(0) * static_cast<double>(count);
    for (int64_t i = 0; i < count; ++i) {
      const float* row = prediction.as<float>() + i * result.classes;
      ++result.confusion[y.as<int64_t>()[i] * result.classes + (std::max_element(row, row + result.classes) - row)];
    }
  }
  int64_t correct = 0;
  for (int64_t c = 0; c < result.classes; ++c) correct += result.confusion[c * result.classes + c];
  result.loss /= static_cast<double>(n);
  result.accuracy = static_cast<double>(correct) / static_cast<double>(n);
  return result;
}

Result<RunResult> run_training(RunOptions options, bool resume, const RunHooks& hooks) {
  if (options.train.threads > 0) set_num_threads(static_cast<int>(options.train.threads));
  DS_ASSIGN(data::Splits splits, data::open_dataset(options.data.name, options.data.params));
  const data::Dataset& train = splits.train;
  DS_TRY(train.validate());
  const int64_t batch = options.train.batch_size;
  const int64_t per_epoch = train.size() / batch, total = per_epoch * options.train.epochs;
  if (per_epoch == 0)
    return invalid("train.batch_size: {} is more than the {} training samples; choose a smaller one", batch,
                   train.size());
  DS_ASSIGN(nn::ModulePtr model, make_model(options, train));
  const StepOptions step = step_options(options);
  DS_ASSIGN(const auto program,
            compile(training_graph(*model, batch_type(train, batch), target_type(train, batch), step)));
  StateStore state(*model, static_cast<uint64_t>(options.train.seed));
  state.prepare(program->graph());

  const std::filesystem::path folder = options.train.output;
  const std::string last = (folder / "last.safetensors").string(), best = (folder / "best.safetensors").string();
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error)
    return make_error(ErrorCode::kIo, "train.output: cannot make the folder '{}': {}", folder.string(),
                      error.message());
  Progress progress;
  if (resume) {
    DS_ASSIGN(io::TensorFile file, io::load_safetensors(last));
    DS_TRY(state.load(file.tensors));
    DS_ASSIGN(progress, from_metadata(file.metadata, last));
    hooks.message(fmt::format("resumed at step {} of {}", progress.step, total));
  } else {
    DS_TRY(write_text((folder / "config.yaml").string(), option_table(options).to_yaml()));
  }
  hooks.message(fmt::format("model {} with {} parameters, {} training samples, {} steps of {}, {:.1f} MiB arena",
                            options.model.name, model->num_parameters(), train.size(), total, batch,
                            static_cast<double>(program->arena_bytes()) / (1 << 20)));
  const auto save = [&](const std::string& path) {
    return io::save_safetensors(path, {state.tensors(), to_metadata(progress)});
  };
  const int loss_at = program->graph().find_output("loss"), prediction_at = program->graph().find_output("prediction");

  DS_ASSIGN(io::EventFile events, io::EventFile::create(folder.string()));
  constexpr int64_t kLogEvery = 20;
  const int norm_at = program->graph().find_output("gradient_norm");

  RunResult result;
  std::vector<int64_t> order;
  int64_t order_epoch = -1;
  double epoch_start = seconds_now();
  while (progress.step < total) {
    const int64_t epoch = progress.step / per_epoch, index = progress.step % per_epoch;
    if (order_epoch != epoch) {
      order = epoch_order(train.size(), options.train.seed, epoch);
      order_epoch = epoch;
    }
    Tensor x, y;
    DS_TRY(train.read(std::span(order).subspan(static_cast<size_t>(index * batch), static_cast<size_t>(batch)), x, y));
    const double rate =
        options.optimizer.learning_rate * schedule_factor(options.schedule, progress.step, total, per_epoch);
    DS_ASSIGN(const std::vector<Tensor> out,
              state.run(*program, {{"x", x},
                                   {"y", y},
                                   {"learning_rate", Tensor::scalar(DType::kF32, rate)},
                                   {"step", Tensor::scalar(DType::kF32, static_cast<double>(progress.step + 1))}}));
    const double loss = out[loss_at].at(0);
    if (!std::isfinite(loss))
      return invalid(
          "the loss is {} at step {}; lower optimizer.learning_rate or set optimizer.clip_norm (last good state: {})",
          loss, progress.step, last);
    ++progress.step;
    progress.loss_sum += loss * static_cast<double>(batch);
    progress.correct += count_correct(out[prediction_at], y);
    progress.seen += batch;
    if (progress.step % kLogEvery == 0) {
      DS_TRY(events.scalar("train/loss", progress.step, loss));
      DS_TRY(events.scalar("train/learning_rate", progress.step, rate));
      DS_TRY(events.scalar("train/gradient_norm", progress.step, out[norm_at].at(0)));
    }
    const double running = progress.loss_sum / static_cast<double>(progress.seen);
    if (!hooks.progress(
            progress.step, total,
            fmt::format("epoch {}/{} loss {:.4f} accuracy {:.2f}%", epoch + 1, options.train.epochs, running,
                        100.0 * static_cast<double>(progress.correct) / static_cast<double>(progress.seen)))) {
      DS_TRY(save(last));
      DS_TRY(events.flush());
      hooks.message(fmt::format("interrupted at step {}, saved to {}; continue with --resume", progress.step, last));
      result.history = progress.history;
      result.interrupted = true;
      return result;
    }
    if (progress.step % per_epoch != 0) continue;
    const data::Dataset& held_out = splits.validation.size() > 0 ? splits.validation : splits.test;
    DS_ASSIGN(const Evaluation validation, evaluate(*model, held_out, 256, step));
    progress.history.push_back({epoch + 1, running,
                                static_cast<double>(progress.correct) / static_cast<double>(progress.seen),
                                validation.loss, validation.accuracy, seconds_now() - epoch_start});
    epoch_start = seconds_now();
    DS_TRY(events.scalar("validation/loss", progress.step, validation.loss));
    DS_TRY(events.scalar("validation/accuracy", progress.step, validation.accuracy));
    DS_TRY(events.flush());
    hooks.message(fmt::format("epoch {}: training loss {:.4f}, validation loss {:.4f}, accuracy {:.2f} %, {:.1f} s",
                              epoch + 1, running, validation.loss, 100 * validation.accuracy,
                              progress.history.back().seconds));
    progress.loss_sum = 0;
    progress.correct = progress.seen = 0;
    if (validation.accuracy > progress.best) {
      progress.best = validation.accuracy;
      DS_TRY(save(best));
    }
    DS_TRY(save(last));
    DS_TRY(write_text((folder / "history.csv").string(), history_csv(progress.history)));
  }
  DS_ASSIGN(const io::TensorFile file, io::load_safetensors(best));
  std::map<std::string, Tensor> weights;
  for (const nn::State& s : model->named_state())
    if (auto it = file.tensors.find(s.name); it != file.tensors.end()) weights[s.name] = it->second;
  DS_TRY(model->load_state(weights));
  DS_ASSIGN(result.test, evaluate(*model, splits.test, 256, step));
  result.history = progress.history;
  DS_TRY(draw_charts(folder, result.history, result.test, splits.test.class_names));
  return result;
}

Result<std::shared_ptr<const runtime::Program>> training_program(const RunOptions& options) {
  DS_ASSIGN(const data::Splits splits, data::open_dataset(options.data.name, options.data.params));
  DS_ASSIGN(nn::ModulePtr model, make_model(options, splits.train));
  const int64_t batch = options.train.batch_size;
  return compile(
      training_graph(*model, batch_type(splits.train, batch), target_type(splits.train, batch), step_options(options)));
}

Result<TrainedModel> load_run(const std::string& folder) {
  TrainedModel run;
  const std::string config = folder + "/config.yaml";
  DS_ASSIGN(const std::string text, read_text(config));
  DS_TRY(option_table(run.options).load_yaml(text, config));
  DS_ASSIGN(run.data, data::open_dataset(run.options.data.name, run.options.data.params));
  DS_ASSIGN(run.model, make_model(run.options, run.data.train));
  DS_ASSIGN(const io::TensorFile file, io::load_safetensors(folder + "/best.safetensors"));
  std::map<std::string, Tensor> weights;
  for (const nn::State& s : run.model->named_state())
    if (auto it = file.tensors.find(s.name); it != file.tensors.end()) weights[s.name] = it->second;
  DS_TRY(run.model->load_state(weights));
  return run;
}

}  // namespace deepseek::train
