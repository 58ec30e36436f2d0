// Memory for the intermediate values of runs, shared by all programs of a backend: an arena goes to the next run that
// it is large enough for, so a training step and its validation need one between them. What is held, idle arenas
// included, keeps to a limit; what no living program could use is given back. Thread-safe.
// Test: tests/runtime/arena_pool_test.cc
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <set>
#include <vector>

#include "graph/tensor.h"

namespace deepseek::runtime {

class ArenaPool {
 public:
  // An arena on loan, which goes back to the pool with this. At least as large as was asked for.
  class Arena {
   public:
    Arena() = default;
    Arena(Arena&& other) noexcept { *this = std::move(other); }
    Arena& operator=(Arena&& other) noexcept {
      std::swap(pool_, other.pool_);
      std::swap(memory_, other.memory_);
      return *this;
    }
    ~Arena() {
      if (pool_ != nullptr) pool_->put(std::move(memory_));
    }
    void* data() const { return memory_.data(); }

   private:
    friend class ArenaPool;
    Arena(ArenaPool* pool, graph::Tensor memory) : pool_(pool), memory_(std::move(memory)) {}
    ArenaPool* pool_ = nullptr;
    graph::Tensor memory_;
  };

  // A program that will ask for arenas of `bytes`, until it is removed again.
  void add_user(size_t bytes);
  void remove_user(size_t bytes);

  // Waits while others hold what the limit allows. Errors: kInvalidArgument where `bytes` alone is more than the limit.
  Result<Arena> take(size_t bytes);

  void set_limit(size_t bytes);  // 0 is none; waiting runs look again
  size_t in_use() const;
  size_t idle() const;
  size_t held() const;  // both, at one moment
  size_t peak() const;  // of in_use()

 private:
  void put(graph::Tensor memory);
  // Frees idle arenas that nobody alive needs; then those that stand longest, until `bytes` more would fit.
  void trim(size_t bytes);
  size_t most_needed() const { return users_.empty() ? 0 : *users_.rbegin(); }

  mutable std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<graph::Tensor> idle_;  // the latest returned last
  std::multiset<size_t> users_;
  size_t limit_ = 0, in_use_ = 0, idle_bytes_ = 0, peak_ = 0;
};

}  // namespace deepseek::runtime
