#include "runtime/module_cache.h"

#include <pthread.h>

#include "base/memory.h"
#include "graph/hash.h"

namespace deepseek::runtime {

namespace {

Hash128 content_of(const Backend& backend, const graph::Graph& graph, const CompileOptions& options) {
  // All members: one more does not compile until it is part of the key.
  const auto& [passes, implementations, observe, measure, constants, limit] = options;
  (void)observe;  // sees what happens, and changes nothing
  Hasher hasher;
  hasher.text(backend.name());
  for (const auto* names : {&passes, &implementations}) {
    hasher.word(names->size());
    for (const std::string& name : *names) hasher.text(name);
  }
  hasher.word(measure ? 1 : 0);
  hasher.word(limit);
  hasher.word(reinterpret_cast<uintptr_t>(&graph.registry()));  // ops of one name may differ between registries
  hasher.word(constants.size());
  for (const auto& [name, tensor] : constants) {
    hasher.text(name);
    add(hasher, tensor);
  }
  add(hasher, graph);
  return hasher.value();
}

// What it keeps between runs; inputs, state among them, are somebody else's.
size_t bytes_of(const Program& program) {
  size_t inputs = 0;
  for (const graph::Input& input : program.graph().inputs()) inputs += program.graph().type(input.value).num_bytes();
  const size_t all = program.memory_bytes();
  return all > inputs ? all - inputs : 0;
}

}  // namespace

ModuleCache::Slot::~Slot() {
  if (cache_ == nullptr) return;
  Entry last;
  const std::lock_guard lock(cache_->mutex_);
  const auto it = cache_->by_content_.find(content_);
  if (it != cache_->by_content_.end() && it->second.expired()) cache_->by_content_.erase(it);
  if (program_ != nullptr) last = cache_->drop(*this);
}

ModuleCache::Entry ModuleCache::Slot::use() {
  const std::lock_guard lock(cache_->mutex_);
  if (program_ != nullptr) cache_->order_.splice(cache_->order_.begin(), cache_->order_, place_);
  return program_;
}

ModuleCache::ModuleCache(Limits limits) { set_limits(limits); }

ModuleCache& ModuleCache::shared() {
  static ModuleCache* const cache = [] {
    // A child of fork() must not find it locked by a thread that it does not have.
    pthread_atfork([] { shared().mutex_.lock(); }, [] { shared().mutex_.unlock(); }, [] { shared().mutex_.unlock(); });
    return new ModuleCache({});  // outlives owners that die late
  }();
  return *cache;
}

Result<ModuleCache::Got> ModuleCache::get(const Backend& backend, const graph::Graph& graph,
                                          const CompileOptions& options) {
  const Hash128 content = content_of(backend, graph, options);
  SlotPtr slot, earlier;  // may be the last to hold theirs, so they go after the lock
  const auto known = [&] {
    const auto it = by_content_.find(content);
    earlier = std::move(slot);
    slot = it == by_content_.end() ? nullptr : it->second.lock();
    if (slot == nullptr || slot->program_ == nullptr) return false;
    order_.splice(order_.begin(), order_, slot->place_);
    return true;
  };
  {
    const std::lock_guard lock(mutex_);
    if (!options.observe && known()) {  // there are passes to be seen only where it is compiled
      ++counts_.found;
      return Got{slot, slot->program_};
    }
  }
  DS_ASSIGN(Entry program, backend.compile(graph, options));
  auto made = std::make_shared<Slot>();
  made->bytes_ = bytes_of(*program);
  made->program_ = program;
  made->content_ = content;
  std::vector<Entry> dropped;
  const std::lock_guard lock(mutex_);
  ++counts_.compiled;
  if (known()) return Got{slot, slot->program_};
  made->cache_ = this;
  order_.push_front(made.get());
  made->place_ = order_.begin();
  by_content_[content] = made;
  counts_.bytes += made->bytes_;
  dropped = shrink();
  return Got{made, std::move(program)};
}

ModuleCache::Entry ModuleCache::drop(Slot& slot) {
  order_.erase(slot.place_);
  counts_.bytes -= slot.bytes_;
  return std::exchange(slot.program_, nullptr);
}

std::vector<ModuleCache::Entry> ModuleCache::shrink() {
  std::vector<Entry> dropped;
  while (order_.size() > limits_.always && (order_.size() > limits_.programs || counts_.bytes > limits_.bytes)) {
    dropped.push_back(drop(*order_.back()));
    ++counts_.dropped;
  }
  return dropped;
}

ModuleCache::Counts ModuleCache::counts() const {
  const std::lock_guard lock(mutex_);
  Counts counts = counts_;
  counts.programs = order_.size();
  return counts;
}

void ModuleCache::set_limits(Limits limits) {
  if (limits.bytes == 0) limits.bytes = std::max(size_t{512} << 20, machine_memory() / 8);
  std::vector<Entry> dropped;
  const std::lock_guard lock(mutex_);
  limits_ = limits;
  dropped = shrink();
}

}  // namespace deepseek::runtime
