#include <chrono>
#include <mutex>

#include "tune/stores/store.h"

namespace deepseek::tune {
namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// Trials of this process alone. Threads may share it.
class MemoryStore : public Store, public std::enable_shared_from_this<MemoryStore> {
 public:
  explicit MemoryStore(std::string config) : config_(std::move(config)) {}

  Status transact(const std::function<Status(Transaction&)>& body) override {
    const std::lock_guard lock(mutex_);
    Changes changes(*this);
    DS_TRY(body(changes));
    for (Trial& t : changes.puts) {
      const auto number = static_cast<size_t>(t.number);
      if (number == trials_.size()) trials_.emplace_back(), beats_.push_back(0);
      beats_[number] = changes.now();
      trials_[number] = std::move(t);
    }
    return {};
  }
  Status beat(const std::vector<int64_t>& numbers) override {
    const std::lock_guard lock(mutex_);
    for (const int64_t n : numbers) beats_[static_cast<size_t>(n)] = seconds_now();
    return {};
  }
  const std::string& config() const override { return config_; }
  Result<std::shared_ptr<Store>> again() override { return std::shared_ptr<Store>(shared_from_this()); }

 private:
  struct Changes : Transaction {
    explicit Changes(MemoryStore& store) : store(store) {}
    const std::vector<Trial>& trials() const override { return store.trials_; }
    Status put(Trial trial) override {
      if (trial.number < 0 || trial.number > static_cast<int64_t>(store.trials_.size()))
        return internal_error("trial {} of {}", trial.number, store.trials_.size());
      puts.push_back(std::move(trial));
      return {};
    }
    double now() const override { return seconds_now(); }
    Result<double> last_beat(int64_t number) override { return store.beats_[static_cast<size_t>(number)]; }
    MemoryStore& store;
    std::vector<Trial> puts;
  };

  std::string config_;
  std::mutex mutex_;
  std::vector<Trial> trials_;
  std::vector<double> beats_;
};

}  // namespace

std::shared_ptr<Store> make_memory_store(std::string config) {
  return std::make_shared<MemoryStore>(std::move(config));
}

}  // namespace deepseek::tune
