// Studies in SQLite (a file; several processes of one machine) or PostgreSQL (many machines).
//
// URLs: sqlite:///relative.db, sqlite:////absolute.db, a plain path that ends in .db or .sqlite,
// postgresql://user@host/name. A lost connection to PostgreSQL (a restart), also the first one, is waited out, up to
// `patience` seconds, and another process's lock of SQLite's file up to 60 s of them; Store::beat() doesn't wait for a
// server. A study in SQLite must not be open while a process is forked; children are refused. Test:
// tests/tune/{store,sqlite,postgres}_test.cc
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tune/space.h"
#include "tune/stores/store.h"

namespace deepseek::tune {

// Seconds for which a database that is away is waited for.
constexpr double kPatience = 600;

struct StudySummary {
  std::string name, config;
  double created = 0;                // seconds since 1970
  int64_t trials = 0, finished = 0;  // finished: complete, pruned or failed
};

// Opens the study `name`; where there is none it is made with `config`, or, without one, kNotFound tells which there
// are. Points are kept as JSON by parameters' names, so the config must hold the space under "space" as
// Space::to_json() gives it. `cancelled` is asked about ten times a second while the store waits, not by what again()
// gives; true ends the call with kInterrupted.
Result<std::shared_ptr<Store>> open_sql_store(const std::string& url, const std::string& name,
                                              const std::string& config, double patience = kPatience,
                                              std::function<bool()> cancelled = {});
Result<std::vector<StudySummary>> list_studies(const std::string& url);
Status delete_study(const std::string& url, const std::string& name);

}  // namespace deepseek::tune
