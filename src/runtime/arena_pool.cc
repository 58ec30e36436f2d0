#include "runtime/arena_pool.h"

#include <algorithm>
#include <new>

#include "base/memory.h"

namespace deepseek::runtime {

using graph::Tensor;

namespace {

// Idle arenas that are kept at most: as many runs at once are rare.
constexpr size_t kMostIdle = 16;
// An arena is not lent for so much less than it has that another program would want its like.
constexpr size_t kMostWaste = 8;

}  // namespace

void ArenaPool::add_user(size_t bytes) {
  const std::lock_guard lock(mutex_);
  users_.insert(bytes);
}

void ArenaPool::remove_user(size_t bytes) {
  const std::lock_guard lock(mutex_);
  if (const auto user = users_.find(bytes); user != users_.end()) users_.erase(user);
  trim(0);
}

Result<ArenaPool::Arena> ArenaPool::take(size_t bytes) {
  std::unique_lock lock(mutex_);
  while (true) {
    if (limit_ > 0 && bytes > limit_)
      return invalid(
          "a run needs {} for intermediate values, the process may hold {} (memory.limit); use smaller "
          "batches, or raise the limit",
          format_bytes(bytes), format_bytes(limit_));
    // The smallest that is large enough; of equal ones the latest used, which is still in the caches.
    size_t best = idle_.size();
    for (size_t i = 0; i < idle_.size(); ++i) {
      const size_t have = idle_[i].num_bytes();
      if (have < bytes || have / kMostWaste > bytes + 4096) continue;
      if (best == idle_.size() || have <= idle_[best].num_bytes()) best = i;
    }
    if (best < idle_.size()) {
      Tensor memory = std::move(idle_[best]);
      idle_.erase(idle_.begin() + static_cast<std::ptrdiff_t>(best));
      idle_bytes_ -= memory.num_bytes();
      in_use_ += memory.num_bytes();
      peak_ = std::max(peak_, in_use_);
      return Arena(this, std::move(memory));
    }
    trim(bytes);
    if (limit_ == 0 || in_use_ + idle_bytes_ + bytes <= limit_) break;
    returned_.wait(lock);
  }
  in_use_ += bytes;
  peak_ = std::max(peak_, in_use_);
  lock.unlock();
  try {
    return Arena(this, Tensor(DType::kU8, {static_cast<int64_t>(bytes)}));
  } catch (const std::bad_alloc&) {
    lock.lock();
    in_use_ -= bytes;
    returned_.notify_all();
    return make_error(ErrorCode::kIo,
                      "a run needs {} for intermediate values, which the system does "
                      "not give; use smaller batches, or set memory.limit",
                      format_bytes(bytes));
  }
}

void ArenaPool::put(Tensor memory) {
  {
    const std::lock_guard lock(mutex_);
    in_use_ -= memory.num_bytes();
    idle_bytes_ += memory.num_bytes();
    idle_.push_back(std::move(memory));
    trim(0);
  }
  returned_.notify_all();
}

void ArenaPool::set_limit(size_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    limit_ = bytes;
    trim(0);
  }
  returned_.notify_all();
}

void ArenaPool::trim(size_t bytes) {
  const auto drop = [&](size_t i) {
    idle_bytes_ -= idle_[i].num_bytes();
    idle_.erase(idle_.begin() + static_cast<std::ptrdiff_t>(i));
  };
  const size_t needed = most_needed();
  for (size_t i = idle_.size(); i-- > 0;)
    if (idle_[i].num_bytes() > needed) drop(i);
  while (!idle_.empty() && (idle_.size() > kMostIdle || (limit_ > 0 && in_use_ + idle_bytes_ + bytes > limit_)))
    drop(0);
}

size_t ArenaPool::in_use() const {
  const std::lock_guard lock(mutex_);
  return in_use_;
}
size_t ArenaPool::idle() const {
  const std::lock_guard lock(mutex_);
  return idle_bytes_;
}
size_t ArenaPool::held() const {
  const std::lock_guard lock(mutex_);
  return in_use_ + idle_bytes_;
}
size_t ArenaPool::peak() const {
  const std::lock_guard lock(mutex_);
  return peak_;
}

}  // namespace deepseek::runtime
