#include "train/resume.h"

#include <algorithm>

#include "base/strings.h"

namespace deepseek::train {

namespace {

constexpr const char* kFree[] = {"train.epochs",     "train.patience",       "train.min_delta",
                                 "train.save_every", "train.threads",        "train.output",
                                 "train.kernels",    "train.check_numerics", "memory."};

bool is_free(const std::string& key) {
  return std::any_of(std::begin(kFree), std::end(kFree), [&](const char* free) {
    return key == free || (std::string_view(free).ends_with('.') && key.starts_with(free));
  });
}

bool may_change(const std::string& key) {
  return key != "optimizer.name" && (key.starts_with("optimizer.") || key.starts_with("schedule."));
}

}  // namespace

Result<std::string> fingerprint(const data::Dataset* d) {
  if (d == nullptr) return std::string("none");
  data::BatchType samples;
  for (const data::Field& f : d->fields()) samples.push_back({f.name, f.sample, f.role});
  DS_ASSIGN(const uint32_t checksum, d->checksum());
  return fmt::format("{} samples {}, checksum {:08x}", d->size(), data::to_string(samples), checksum);
}

Result<Settings> run_settings(const TrainerOptions& options, const data::Dataset& train,
                              const data::Dataset* validation, const std::vector<std::string>& metrics,
                              const std::string& monitor, bool own_loss) {
  TrainerOptions o = options;
  o.optimizer.resolve();
  if (own_loss)
    o.loss.name = "a function";
  else if (const auto targets = train.targets(); targets.size() == 1)
    o.loss.name = resolve_loss(o.loss.name, targets[0]->sample.dtype);
  o.train.metrics = metrics;
  o.train.monitor = monitor;
  Settings settings;
  for (const OptionTable::Record& r : option_table(o).records())
    if (!is_free(r.path)) settings[r.path] = r.value;
  for (const auto& [key, value] : o.loss.params) settings["loss." + key] = value;
  DS_ASSIGN(settings["training data"], fingerprint(&train));
  DS_ASSIGN(settings["validation data"], fingerprint(validation));
  return settings;
}

SettingChanges compare_settings(const Settings& begun, const Settings& now) {
  SettingChanges changes;
  if (begun.empty()) return changes;
  const auto differ = [&](const std::string& key, const std::string& was, const std::string& is) {
    if (was == is) return;
    (may_change(key) ? changes.allowed : changes.refused)
        .push_back(fmt::format("{}: {} when the run began, {} now", key, was, is));
  };
  for (const auto& [key, was] : begun) differ(key, was, now.contains(key) ? now.at(key) : "not given");
  for (const auto& [key, is] : now)
    if (!begun.contains(key) && key.starts_with("loss.")) differ(key, "not given", is);
  return changes;
}

}  // namespace deepseek::train
