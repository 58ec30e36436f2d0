// Batches from a data set. Invariant: a batch is a pure function of (options, epoch, batch index), so a resumed run,
// another thread count or prefetching sees the same numbers. DataLoader computes a batch on the caller's thread;
// BatchStream runs ahead on one of its own. Test: tests/data/loader_test.cc
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"
#include "data/augment.h"
#include "data/dataset.h"

namespace deepseek::data {

struct LoaderOptions {
  int64_t batch_size = 64;
  bool shuffle = false;
  uint64_t seed = 0;
  bool drop_last = false;  // leave out the last batch where it is smaller
  // What changes images [N, C, H, W] of u8 or f32, raw as they are: the data set's one such input. Where it mixes,
  // samples of a batch are mixed with each other, other inputs of u8 and f32 too, and each target of class labels
  // becomes f32 [b, classes], weights of classes that sum to 1.
  std::shared_ptr<const ImageAugmenter> augmenter = nullptr;
};

class DataLoader {
 public:
  // Errors: kInvalidArgument (options), and those of Dataset::validate().
  static Result<DataLoader> create(DatasetPtr dataset, LoaderOptions options);

  const Dataset& dataset() const { return *dataset_; }
  const LoaderOptions& options() const { return options_; }
  int64_t num_batches() const;  // per epoch
  // As Dataset::read() gives it, of batch_size samples or, in the last batch, fewer. epoch >= 0. Thread-safe.
  Result<Batch> batch(int64_t epoch, int64_t index) const;

 private:
  using Order = std::shared_ptr<const std::vector<int64_t>>;
  DataLoader(DatasetPtr dataset, LoaderOptions options);
  Order order_of(int64_t epoch) const;
  Result<Batch> read_augmented(int64_t epoch, int64_t index, std::span<const int64_t> samples) const;

  struct Cache {
    std::mutex mutex;
    int64_t epoch = -1;
    Order order;
  };
  DatasetPtr dataset_;
  LoaderOptions options_;
  std::unique_ptr<Cache> cache_;  // the last epoch's order
};

// The batches of epochs [epoch, end_epoch), of the first one from `first` on, made ahead by one thread: `depth` of them, or
// of small ones as many as take kAhead bytes, up to kMostAhead. To wake a thread takes as long as a small step, so who
// waits is woken when half of them are wanted, and one stream serves a whole run.
class BatchStream {
 public:
  static constexpr size_t kAhead = size_t{4} << 20, kMostAhead = 64;

  // The loader must outlive the stream. depth >= 1; end_epoch: by default one epoch alone.
  BatchStream(const DataLoader& loader, int64_t epoch, int64_t first = 0, size_t depth = 2, int64_t end_epoch = 0);
  ~BatchStream();  // stops the thread, also midway
  BatchStream(const BatchStream&) = delete;
  BatchStream& operator=(const BatchStream&) = delete;

  // The next batch in order, none after the last one. An error of the thread arrives after the batches made before it,
  // and stays.
  Result<std::optional<Batch>> next();

 private:
  void run(const DataLoader& loader, int64_t epoch, int64_t first, int64_t end_epoch);
  bool put(Batch batch);  // false: stop
  void finish(Status status);

  std::mutex mutex_;
  std::condition_variable made_, taken_;
  size_t most_;  // made ahead
  std::deque<Batch> ready_;
  Status error_;
  bool maker_waits_ = false, taker_waits_ = false;
  bool finished_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace deepseek::data
