// Programs by what they were compiled for, the latest used ones: a loop whose last batch is smaller, or that meets
// sequences of many lengths, compiles each once, and memory stays bounded, since each program keeps an arena.
// Not for several threads at once. Test: tests/runtime/program_cache_test.cc
#pragma once

#include <algorithm>
#include <list>
#include <memory>
#include <string>
#include <utility>

#include "runtime/program.h"

namespace deepseek::runtime {

class ProgramCache {
 public:
  using Entry = std::shared_ptr<const Program>;
  explicit ProgramCache(size_t most = 16) : most_(most) {}

  // The program of this key; where there is none, `make` gives a Result<Entry>.
  template <class Make>
  Result<Entry> get(const std::string& key, const Make& make) {
    const auto it = std::find_if(entries_.begin(), entries_.end(), [&](const auto& e) { return e.first == key; });
    if (it != entries_.end()) {
      entries_.splice(entries_.begin(), entries_, it);
      return it->second;
    }
    DS_ASSIGN(Entry program, make());
    entries_.emplace_front(key, program);
    if (entries_.size() > most_) entries_.pop_back();
    ++compiled_;
    return program;
  }

  size_t size() const { return entries_.size(); }
  int64_t compiled() const { return compiled_; }  // how often `make` gave one

 private:
  size_t most_;
  std::list<std::pair<std::string, Entry>> entries_;  // the latest used first
  int64_t compiled_ = 0;
};

}  // namespace deepseek::runtime
