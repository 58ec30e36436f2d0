#include "train/checkpoint.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>

#include "base/json.h"
#include "base/strings.h"
#include "nn/module.h"

namespace deepseek::train {

using graph::Tensor;
using Json = nlohmann::json;

namespace {

constexpr const char* kMetrics = "training/metrics";

// JSON has no NaN and infinities; as text they survive.
Json number(double v) { return fmt::format("{}", v); }
// Not by stod, for which "0.5" may be 0 in another locale.
double to_double(const Json& j) {
  const std::optional<double> value = parse_number(j.get_ref<const std::string&>());
  if (!value) throw std::invalid_argument("expected a number, got '" + j.get<std::string>() + "'");
  return *value;
}

Json values(const NamedValues& named) {
  Json out = Json::array();
  for (const auto& [name, value] : named) out.push_back({name, number(value)});
  return out;
}
NamedValues to_values(const Json& j) {
  NamedValues out;
  for (const Json& pair : j) out.emplace_back(pair.at(0).get<std::string>(), to_double(pair.at(1)));
  return out;
}

}  // namespace

Status save_checkpoint(const std::string& path, std::map<std::string, Tensor> tensors, const Progress& p) {
  Json history = Json::array();
  for (const EpochRecord& r : p.history)
    history.push_back({{"epoch", r.epoch},
                       {"seconds", number(r.seconds)},
                       {"learning_rate", number(r.learning_rate)},
                       {"training", values(r.training)},
                       {"validation", values(r.validation)}});
  const Json progress = {{"step", p.step},
                         {"loss_sum", number(p.loss_sum)},
                         {"term_sums", values(p.term_sums)},
                         {"seen", p.seen},
                         {"skipped", p.skipped},
                         {"precision", p.precision},
                         {"best", number(p.best)},
                         {"has_best", p.has_best},
                         {"bad_epochs", p.bad_epochs},
                         {"stopped_early", p.stopped_early},
                         {"plateau_factor", number(p.plateau.factor)},
                         {"plateau_bad_epochs", p.plateau.bad_epochs},
                         {"epoch_seconds", number(p.epoch_seconds)},
                         {"settings", p.settings},
                         {"history", history}};
  tensors[kMetrics] = Tensor::from<double>(DType::kF64, {static_cast<int64_t>(p.metrics.size())}, std::span(p.metrics));
  return io::save_safetensors(path, {std::move(tensors), {{"progress", dump_json(progress)}}});
}

Status load_checkpoint(const std::string& path, std::map<std::string, Tensor>& tensors, Progress& p) {
  DS_ASSIGN(io::TensorFile file, io::load_safetensors(path));
  const auto metrics = file.tensors.find(kMetrics);
  if (!file.metadata.contains("progress") || metrics == file.tensors.end())
    return make_error(ErrorCode::kDataCorrupt, "{}: the file holds no training progress; it is no checkpoint to resume",
                      path);
  try {
    const Json j = parse_json<Json>(file.metadata.at("progress"));
    j.at("step").get_to(p.step);
    p.loss_sum = to_double(j.at("loss_sum"));
    p.term_sums = to_values(j.at("term_sums"));
    j.at("seen").get_to(p.seen);
    p.skipped = j.value("skipped", int64_t{0});  // older files have neither
    p.precision = j.value("precision", std::string("f32"));
    p.best = to_double(j.at("best"));
    j.at("has_best").get_to(p.has_best);
    j.at("bad_epochs").get_to(p.bad_epochs);
    j.at("stopped_early").get_to(p.stopped_early);
    p.plateau.factor = to_double(j.at("plateau_factor"));
    j.at("plateau_bad_epochs").get_to(p.plateau.bad_epochs);
    p.epoch_seconds = to_double(j.at("epoch_seconds"));
    p.settings = j.value("settings", Settings());
    p.history.clear();
    for (const Json& r : j.at("history"))
      p.history.push_back({r.at("epoch").get<int64_t>(), to_double(r.at("seconds")), to_double(r.at("learning_rate")),
                           to_values(r.at("training")), to_values(r.at("validation"))});
  } catch (const std::exception& e) {  // nlohmann's errors and to_double's
    return make_error(ErrorCode::kDataCorrupt, "{}: the training progress is damaged: {}", path, e.what());
  }
  p.metrics.clear();
  for (int64_t i = 0; i < metrics->second.num_elements(); ++i) p.metrics.push_back(metrics->second.at(i));
  file.tensors.erase(metrics);
  // Older files, which have no settings, call the random counter as a parameter might be.
  if (auto counter = p.settings.empty() ? file.tensors.extract("random") : decltype(file.tensors)::node_type()) {
    counter.key() = nn::kRandomCounter;
    file.tensors.insert(std::move(counter));
  }
  tensors = std::move(file.tensors);
  return {};
}

std::string history_csv(const std::vector<EpochRecord>& history) {
  if (history.empty()) return "";
  std::string csv = "epoch,seconds,learning_rate";
  for (const auto& [name, value] : history[0].training) csv += ",train_" + name;
  for (const auto& [name, value] : history[0].validation) csv += ",validation_" + name;
  for (const EpochRecord& r : history) {
    csv += fmt::format("\n{},{:.3f},{}", r.epoch, r.seconds, r.learning_rate);
    for (const NamedValues* part : {&r.training, &r.validation})
      for (const auto& [name, value] : *part) csv += fmt::format(",{}", value);
  }
  return csv + "\n";
}

}  // namespace deepseek::train
