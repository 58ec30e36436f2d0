// The programs of this process: one per content, that is graph, backend and options of compilation, constants included,
// whoever asks. Owners (a module's calls, a step, a trainer) find theirs by keys of their own in a CacheView. Bounded
// in number and bytes: the longest unused go first, and are compiled again when they are asked for. For any number of
// threads. Test: tests/runtime/module_cache_test.cc
#pragma once

#include <algorithm>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/hash.h"
#include "runtime/backend.h"

namespace deepseek::runtime {

class ModuleCache {
 public:
  using Entry = std::shared_ptr<const Program>;

  // A program's place. It lives as long as an owner holds it; the program may go before.
  class Slot {
   public:
    ~Slot();
    // The program, which is now the latest used one; null once it had to go.
    Entry use();

   private:
    friend class ModuleCache;
    ModuleCache* cache_ = nullptr;
    Hash128 content_;
    Entry program_;
    size_t bytes_ = 0;
    std::list<Slot*>::iterator place_;
  };
  using SlotPtr = std::shared_ptr<Slot>;

  struct Got {
    SlotPtr slot;
    Entry program;
  };

  struct Limits {
    size_t programs = 512;
    size_t bytes = 0;   // 0: an eighth of the machine's memory, 512 MiB at least
    size_t always = 4;  // the latest ones stay, however large they are
  };
  struct Counts {
    size_t programs = 0, bytes = 0;
    int64_t compiled = 0, found = 0, dropped = 0;
  };

  explicit ModuleCache(Limits limits);
  static ModuleCache& shared();

  // Compiles where there is none of this content. Two threads that ask for the same at once may both compile; both get
  // the program of one.
  Result<Got> get(const Backend& backend, const graph::Graph& graph, const CompileOptions& options);

  Counts counts() const;
  void set_limits(Limits limits);

 private:
  // What is dropped comes back, to die without the lock: its tensors may be Python's, whose lock others hold meanwhile.
  [[nodiscard]] std::vector<Entry> shrink();
  [[nodiscard]] Entry drop(Slot& slot);
  mutable std::mutex mutex_;
  Limits limits_;
  Counts counts_;
  std::list<Slot*> order_;  // with a program; the latest used first
  std::map<Hash128, std::weak_ptr<Slot>> by_content_;
};

// One owner's programs by its keys, with what it keeps beside each. Not for several threads at once.
template <class Extra = std::monostate>
class CacheView {
 public:
  struct Found {
    ModuleCache::Entry program;
    Extra* extra = nullptr;
    explicit operator bool() const { return program != nullptr; }
  };
  explicit CacheView(size_t most = 256) : most_(most) {}

  Found find(const std::string& key) {
    const auto it = entries_.find(key);
    if (it == entries_.end()) return {};
    ModuleCache::Entry program = it->second.slot->use();
    if (program == nullptr) {
      order_.erase(it->second.place);
      entries_.erase(it);
      return {};
    }
    order_.splice(order_.begin(), order_, it->second.place);
    return {std::move(program), &it->second.extra};
  }
  void put(const std::string& key, ModuleCache::SlotPtr slot, Extra extra = {}) {
    erase(key);
    order_.push_front(key);
    entries_.emplace(key, Item{std::move(slot), std::move(extra), order_.begin()});
    if (entries_.size() > most_) erase(std::string(order_.back()));
  }
  void erase(const std::string& key) {
    const auto it = entries_.find(key);
    if (it == entries_.end()) return;
    order_.erase(it->second.place);
    entries_.erase(it);
  }
  template <class Gone>
  void erase_if(const Gone& gone) {
    for (auto it = entries_.begin(); it != entries_.end();) {
      if (!gone(it->first)) {
        ++it;
        continue;
      }
      order_.erase(it->second.place);
      it = entries_.erase(it);
    }
  }
  size_t size() const { return entries_.size(); }

  // The program of this key; where there is none, what `make` gives: a Result<ModuleCache::Got>.
  template <class Make>
  Result<ModuleCache::Entry> get(const std::string& key, const Make& make) {
    if (Found found = find(key)) return std::move(found.program);
    DS_ASSIGN(ModuleCache::Got got, make());
    put(key, std::move(got.slot));
    return std::move(got.program);
  }

 private:
  struct Item {
    ModuleCache::SlotPtr slot;
    Extra extra;
    std::list<std::string>::iterator place;
  };
  size_t most_;
  std::list<std::string> order_;  // the latest used first
  std::unordered_map<std::string, Item> entries_;
};

}  // namespace deepseek::runtime
