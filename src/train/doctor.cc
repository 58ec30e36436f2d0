#include "train/doctor.h"

#include <chrono>
#include <filesystem>

#include "base/memory.h"
#include "base/threads.h"
#include "base/version.h"
#include "data/dataset.h"
#include "models/zoo.h"
#include "train/trainer.h"

namespace deepseek::train {

namespace {

constexpr size_t kLittleMemory = size_t{1} << 30, kLittleDisk = size_t{1} << 30;

// Two classes that a plane separates.
Result<data::DatasetPtr> small_data() {
  constexpr int64_t kSamples = 256, kFeatures = 8;
  graph::Tensor x(DType::kF32, {kSamples, kFeatures}), y(DType::kI64, {kSamples});
  for (int64_t i = 0; i < kSamples; ++i) {
    float sum = 0;
    for (int64_t j = 0; j < kFeatures; ++j) {
      const float value = static_cast<float>((i * 37 + j * 101 + i * j * 13) % 199) / 99 - 1;
      x.as<float>()[i * kFeatures + j] = value;
      sum += value;
    }
    y.as<int64_t>()[i] = sum > 0;
  }
  return data::ArrayDataset::create(
      {{.name = "x"}, {.name = "y", .role = data::Role::kTarget, .class_names = {"below", "above"}}},
      {{"x", x}, {"y", y}});
}

Finding train_a_little(const std::string& device) {
  Finding finding{"training on " + device, "", ""};
  const auto begin = std::chrono::steady_clock::now();
  const auto fit = [&]() -> Result<FitResult> {
    DS_ASSIGN(const data::DatasetPtr data, small_data());
    DS_ASSIGN(const nn::ModulePtr model, models::create("mlp", {{8}, 2}, {{"width", "32"}}));
    TrainerOptions options;
    options.device = device;
    options.optimizer.name = "adam";
    options.train.epochs = 10;
    options.train.output = "";
    return Trainer(model, options).fit(data, nullptr, false, {});
  };
  const Result<FitResult> result = fit();
  if (!result.ok()) {
    finding.text = result.status().to_string();
    finding.advice = "the installation can't train; install it anew, and report this if it stays";
    return finding;
  }
  const double first = result->history.front().training[0].second, last = result->history.back().training[0].second;
  finding.text =
      fmt::format("40 updates of a small network in {:.2f} s, loss {:.3f} to {:.3f}",
                  std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), first, last);
  if (!(last < first)) finding.advice = "the loss did not fall: this machine computes wrongly; please report it";
  return finding;
}

}  // namespace

std::vector<Finding> examine(const std::string& folder, const std::function<std::string(const char*)>& load_error) {
  std::vector<Finding> findings{{"version", version(), ""}};
  std::vector<std::string> usable;
  for (const runtime::BackendEntry& entry : runtime::registered_backends()) {
    const Result<runtime::BackendPtr> device = runtime::open_backend(entry.name);
    std::string text = device.ok() ? entry.doc : "not usable: " + device.status().message();
    if (device.ok())
      for (const auto& [name, value] : (*device)->properties()) text += fmt::format(", {} {}", name, value);
    findings.push_back({"device " + std::string(entry.name), text, ""});
    if (device.ok()) usable.emplace_back(entry.name);
  }
  findings.push_back({"threads", std::to_string(num_threads()), ""});
  const size_t memory = machine_memory(), available = available_memory();
  findings.push_back({"memory", fmt::format("{}, {} of it free", format_bytes(memory), format_bytes(available)),
                      available < kLittleMemory ? "end other programs, or set memory.limit in the config" : ""});
  std::error_code error;
  const std::filesystem::space_info disk = std::filesystem::space(folder, error);
  if (error)
    findings.push_back({"disk", fmt::format("'{}': {}", folder, error.message()), "go to a folder that exists"});
  else
    findings.push_back(
        {"disk", fmt::format("{} free in '{}'", format_bytes(disk.available), folder),
         disk.available < kLittleDisk ? "free some, or set train.output to a folder of another disk" : ""});
  const auto library = [&](const char* subject, const char* file, const char* works, const char* advice) {
    const std::string problem = load_error(file);
    findings.push_back({subject, problem.empty() ? works : problem, problem.empty() ? "" : advice});
  };
  library("tables", "libdeepseek_tables.so", "Arrow is there", "pip install \"deepseek[data]\"");
  library("tuning", "libdeepseek_tune.so", "SQLite and PostgreSQL's client are there",
          "install SQLite and PostgreSQL's client: apt-get install libsqlite3-0 libpq5");
  for (const std::string& device : usable) findings.push_back(train_a_little(device));
  return findings;
}

}  // namespace deepseek::train
