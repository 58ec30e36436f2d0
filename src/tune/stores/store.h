// Where a study's trials are kept: in memory, or in a database that many processes share (sql_store.h). All changes are
// made in transactions, so that a trial is never lost, half written or given to two workers. Test:
// tests/tune/store_test.cc
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "tune/trial.h"

namespace deepseek::tune {

class Transaction {
 public:
  virtual ~Transaction() = default;
  // All trials by number (position = number), as they are now; what this transaction puts isn't in there.
  virtual const std::vector<Trial>& trials() const = 0;
  // Adds the trial trials().size(), or replaces one, when the transaction ends well. At most one per number.
  virtual Status put(Trial trial) = 0;
  // Seconds since 1970 by the store's clock, which is one for all workers.
  virtual double now() const = 0;
  // When the trial's worker was last heard of: by put() or beat().
  virtual Result<double> last_beat(int64_t number) = 0;
};

class Store {
 public:
  virtual ~Store() = default;
  // Runs `body`, alone: other processes' transactions wait. If it returns an error, nothing is changed. It may run
  // again where the connection to a database was lost; then it finds what an earlier run has changed, should that have
  // been kept.
  virtual Status transact(const std::function<Status(Transaction&)>& body) = 0;
  // Tells that the worker of these running trials lives.
  virtual Status beat(const std::vector<int64_t>& numbers) = 0;
  // The study's settings (JSON), as they were when it was made.
  virtual const std::string& config() const = 0;
  // Another connection to the same study, for another thread (of heartbeats); itself where threads may share it.
  virtual Result<std::shared_ptr<Store>> again() = 0;
};

std::shared_ptr<Store> make_memory_store(std::string config);

}  // namespace deepseek::tune
