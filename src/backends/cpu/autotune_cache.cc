#include "backends/cpu/autotune_cache.h"

#include <dlfcn.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>

#include "backends/cpu/cpu_backend.h"
#include "base/threads.h"

namespace deepseek::backends::cpu {

using graph::Dims;
using graph::Tensor;

namespace {

constexpr int kLeastRounds = 3, kMostRounds = 20;
constexpr double kSeconds = 0.01;  // for a node

// FNV-1a (Fowler, Noll, Vo), 64 bit.
std::string hash(std::string_view text) {
  uint64_t h = 0xcbf29ce484222325;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return fmt::format("{:016x}", h);
}

// Another build may have other kernels.
std::string build() {
  Dl_info info;
  std::error_code error;
  if (dladdr(reinterpret_cast<const void*>(&hash), &info) == 0) return "unknown";
  const std::filesystem::path library(info.dli_fname);
  const auto size = std::filesystem::file_size(library, error);
  const auto time = std::filesystem::last_write_time(library, error);
  return fmt::format("{} {}", size, time.time_since_epoch().count());
}

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(std::min(line.size(), line.find(':') + 2));
  return "unknown";
}

std::filesystem::path cache_folder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::filesystem::path(value == nullptr ? "" : value);
  };
  if (const auto own = variable("DEEPSEEK_CACHE"); !own.empty()) return own;
  if (const auto xdg = variable("XDG_CACHE_HOME"); !xdg.empty()) return xdg / "deepseek";
  if (const auto home = variable("HOME"); !home.empty()) return home / ".cache" / "deepseek";
  return {};
}

}  // namespace

AutotuneCache::AutotuneCache(std::string path, std::string machine)
    : path_(std::move(path)), machine_(std::move(machine)) {
  read(known_);
}

AutotuneCache& AutotuneCache::of_machine() {
  static std::mutex mutex;
  static std::map<int, std::unique_ptr<AutotuneCache>> all;
  const std::lock_guard lock(mutex);
  std::unique_ptr<AutotuneCache>& cache = all[num_threads()];
  if (!cache) {
    const std::string machine = fmt::format("deepseek kernels of {}, {}, {} threads, build {}", cpu_model(), isa_name(),
                                            num_threads(), build());
    const std::filesystem::path folder = cache_folder();
    cache = std::make_unique<AutotuneCache>(
        folder.empty() ? std::string() : (folder / ("kernels-" + hash(machine) + ".txt")).string(), machine);
  }
  return *cache;
}

// A first line that names the machine, then "hash implementation" each.
void AutotuneCache::read(std::map<std::string, std::string>& into) const {
  std::ifstream file(path_);
  std::string line;
  if (path_.empty() || !std::getline(file, line) || line != machine_) return;
  while (std::getline(file, line))
    if (const size_t space = line.find(' '); space == 16 && line.find(' ', space + 1) == std::string::npos)
      into.emplace(line.substr(0, space), line.substr(space + 1));
}

std::string AutotuneCache::find(std::string_view node) {
  const std::lock_guard lock(mutex_);
  const auto it = known_.find(hash(node));
  return it == known_.end() ? std::string() : it->second;
}

void AutotuneCache::remember(std::string_view node, std::string implementation) {
  const std::lock_guard lock(mutex_);
  known_[hash(node)] = std::move(implementation);
  changed_ = true;
}

Status AutotuneCache::save() {
  const std::lock_guard lock(mutex_);
  if (!changed_ || path_.empty()) return {};
  read(known_);
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), error);
  // Complete under another name first: readers see the old file or the new one.
  const std::string next = fmt::format("{}.{}", path_, getpid());
  std::ofstream file(next);
  file << machine_ << '\n';
  for (const auto& [node, implementation] : known_) file << node << ' ' << implementation << '\n';
  file.close();
  if (file) std::filesystem::rename(next, path_, error);
  if (!file || error) {
    std::filesystem::remove(next, error);
    return make_error(ErrorCode::kIo, "'{}' can't be written; kernels are measured again next time", path_);
  }
  changed_ = false;
  return {};
}

std::vector<double> time_kernels(const NodeInfo& node, const std::vector<const Kernel*>& kernels) {
  std::vector<Tensor> in, out;
  std::vector<const void*> inputs;
  std::vector<void*> outputs;
  for (size_t i = 0; i < node.context.num_inputs(); ++i) {
    const graph::TensorType& type = node.context.in(i);
    Tensor t = Tensor::zeros(type.dtype, type.dims);
    // Zeros of integers are valid indices; those of floats would make some arithmetic faster than it is.
    if (type.dtype == DType::kF32)
      for (int64_t k = 0; k < t.num_elements(); ++k) t.as<float>()[k] = static_cast<float>(k % 17) / 16 + 0.25f;
    in.push_back(std::move(t));
    inputs.push_back(in.back().data());
  }
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    out.emplace_back(node.outputs[i]);
    outputs.push_back(node.used[i] ? out.back().data() : nullptr);
  }
  std::vector<Tensor> scratch, prepared;
  std::vector<bool> failed;
  for (const Kernel* kernel : kernels) {
    scratch.emplace_back(DType::kU8, Dims{static_cast<int64_t>(kernel->scratch_bytes())});
    prepared.emplace_back(DType::kU8, Dims{static_cast<int64_t>(kernel->prepared_bytes())});
    failed.push_back(kernel->prepared_bytes() > 0 &&
                     !kernel->prepare({inputs, outputs, scratch.back().data(), prepared.back().data()}).ok());
  }
  std::vector<double> seconds(kernels.size(), std::numeric_limits<double>::infinity());
  double total = 0;
  // In turns, so that what else the machine does slows all alike; the first run warms up.
  for (int round = 0; round <= kMostRounds && (round <= kLeastRounds || total < kSeconds); ++round)
    for (size_t k = 0; k < kernels.size(); ++k) {
      const auto begin = std::chrono::steady_clock::now();
      if (failed[k] || !kernels[k]->run({inputs, outputs, scratch[k].data(), prepared[k].data()}).ok()) continue;
      const double time = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      if (round > 0) seconds[k] = std::min(seconds[k], time);
      total += time;
    }
  return seconds;
}

}  // namespace deepseek::backends::cpu
