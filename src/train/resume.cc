#include "train/resume.h"

#include <algorithm>

#include "base/strings.h"
#include "io/event_file.h"

namespace deepseek::train {

namespace {

constexpr const char* kFree[] = {"train.epochs",  "train.patience", "train.min_delta", "train.save_every",
                                 "train.threads", "train.output",   "train.kernels",   "memory."};
constexpr size_t kMostBytes = size_t{1} << 24;

bool is_free(const std::string& key) {
  return std::any_of(std::begin(kFree), std::end(kFree), [&](const char* free) {
    return key == free || (std::string_view(free).ends_with('.') && key.starts_with(free));
  });
}

bool may_change(const std::string& key) {
  return key != "optimizer.name" && (key.starts_with("optimizer.") || key.starts_with("schedule."));
}

uint32_t checksum(const graph::Tensor& t) {
  if (!t.defined()) return 0;
  return io::crc32c({static_cast<const std::byte*>(t.data()), std::min(t.num_bytes(), kMostBytes)});
}

// "288 samples f32[1,28,28], checksums 1c291ca3 47eed3e7": of what the first inputs and targets are.
std::string fingerprint(const data::Dataset& d) {
  if (d.size() == 0) return "none";
  graph::TensorType sample = d.input_type();
  sample.dims.erase(sample.dims.begin());
  return fmt::format("{} samples {}, checksums {:08x} {:08x}", d.size(), to_string(sample), checksum(d.inputs),
                     checksum(d.targets));
}

}  // namespace

Settings run_settings(const TrainerOptions& options, const data::Dataset& train, const data::Dataset& validation,
                      const std::vector<std::string>& metrics, const std::string& monitor, bool own_loss) {
  TrainerOptions o = options;
  o.optimizer.resolve();
  o.loss.name = own_loss ? "a function" : resolve_loss(o.loss.name, train.targets.dtype());
  o.train.metrics = metrics;
  o.train.monitor = monitor;
  Settings settings;
  for (const OptionTable::Record& r : option_table(o).records())
    if (!is_free(r.path)) settings[r.path] = r.value;
  for (const auto& [key, value] : o.loss.params) settings["loss." + key] = value;
  settings["training data"] = fingerprint(train);
  settings["validation data"] = fingerprint(validation);
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
