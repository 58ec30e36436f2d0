#include "runtime/shared_constants.h"

#include <pthread.h>

#include <map>
#include <mutex>

#include "graph/hash.h"

namespace deepseek::runtime {

using graph::Tensor;

namespace {

constexpr size_t kSmall = 4096;  // bytes; below, hashing costs more than it spares

struct Kept {
  std::weak_ptr<void> owner;
  void* data;
};
struct Constants {
  std::mutex mutex;
  std::map<Hash128, Kept> kept;
};
Constants& constants() {
  static Constants* const all = [] {
    pthread_atfork([] { constants().mutex.lock(); }, [] { constants().mutex.unlock(); },
                   [] { constants().mutex.unlock(); });
    return new Constants;  // outlives programs that die late
  }();
  return *all;
}

// A tensor of the same type and bytes that is kept, or what `make` gives, which is kept from now on.
template <class Make>
Tensor share(const Tensor& tensor, const Make& make) {
  if (!tensor.defined() || tensor.num_bytes() < kSmall) return make();
  Hasher hasher;
  add(hasher, tensor);
  Constants& all = constants();
  const std::lock_guard lock(all.mutex);
  std::erase_if(all.kept, [](const auto& k) { return k.second.owner.expired(); });
  Kept& kept = all.kept[hasher.value()];
  if (std::shared_ptr<void> owner = kept.owner.lock()) return Tensor(tensor.type(), kept.data, std::move(owner));
  Tensor made = make();
  kept = {made.owner(), made.data()};
  return made;
}

}  // namespace

Tensor share_constant(Tensor tensor) {
  return share(tensor, [&] { return tensor; });
}

Tensor share_copy(const Tensor& tensor) {
  return share(tensor, [&] { return tensor.defined() ? tensor.clone() : tensor; });
}

}  // namespace deepseek::runtime
