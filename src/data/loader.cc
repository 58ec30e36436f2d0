#include "data/loader.h"

#include <algorithm>
#include <exception>
#include <span>

#include "base/random.h"
#include "base/threads.h"

namespace deepseek::data {
namespace {

// Independent streams of random numbers from one seed.
constexpr uint64_t kShuffleStream = 0x5348, kAugmentStream = 0x4147;

uint64_t key_of(uint64_t stream, uint64_t seed, int64_t epoch) {
  return hash_of(stream, seed, static_cast<uint64_t>(epoch));
}

}  // namespace

DataLoader::DataLoader(const Dataset& dataset, LoaderOptions options)
    : dataset_(&dataset), options_(std::move(options)), cache_(std::make_unique<Cache>()) {}

Result<DataLoader> DataLoader::create(const Dataset& dataset, LoaderOptions options) {
  DS_TRY(dataset.validate());
  if (options.batch_size < 1) return invalid("[data] batch_size is {}, expected at least 1", options.batch_size);
  if (options.augmenter) {
    const graph::TensorType type = dataset.input_type();
    if (type.rank() != 4 || (type.dtype != DType::kU8 && type.dtype != DType::kF32))
      return invalid("[data] augmentation needs images [N,C,H,W] of u8 or f32, got {}", to_string(type));
    if (options.augmenter->mixes() && dataset.is_classification() &&
        (dataset.targets.dims().size() != 1 || dataset.num_classes() < 2))
      return invalid("[data] cutmix and mixup need labels [N] of 2 classes or more, got {} and {} classes",
                     to_string(dataset.targets.type()), dataset.num_classes());
  }
  if (options.drop_last && options.batch_size > dataset.size()) {
    return invalid("[data] batch_size {} with drop_last leaves no batch of {} samples; use a smaller one",
                   options.batch_size, dataset.size());
  }
  return DataLoader(dataset, std::move(options));
}

int64_t DataLoader::num_batches() const {
  const int64_t whole = dataset_->size() / options_.batch_size;
  return whole + (!options_.drop_last && dataset_->size() % options_.batch_size != 0 ? 1 : 0);
}

DataLoader::Order DataLoader::order_of(int64_t epoch) const {
  const std::lock_guard lock(cache_->mutex);
  if (cache_->epoch != epoch) {
    cache_->order = std::make_shared<const std::vector<int64_t>>(
        permutation(dataset_->size(), key_of(kShuffleStream, options_.seed, epoch)));
    cache_->epoch = epoch;
  }
  return cache_->order;
}

Status DataLoader::batch(int64_t epoch, int64_t index, graph::Tensor& x, graph::Tensor& y) const {
  if (epoch < 0) return invalid("[data] epoch is {}, expected 0 or more", epoch);
  if (index < 0 || index >= num_batches()) {
    return invalid("[data] batch index {} is out of range, an epoch has {} batches", index, num_batches());
  }
  const int64_t begin = index * options_.batch_size;
  const int64_t end = begin + std::min(options_.batch_size, dataset_->size() - begin);
  std::vector<int64_t> samples(static_cast<size_t>(end - begin));
  if (options_.shuffle) {
    const Order order = order_of(epoch);
    std::copy(order->begin() + begin, order->begin() + end, samples.begin());
  } else {
    std::iota(samples.begin(), samples.end(), begin);
  }
  if (options_.augmenter) return read_augmented(epoch, index, samples, x, y);
  return dataset_->read(samples, x, y);
}

Status DataLoader::read_augmented(int64_t epoch, int64_t index, std::span<const int64_t> samples, graph::Tensor& x,
                                  graph::Tensor& y) const {
  DS_ASSIGN(Dataset part, dataset_->in_memory(samples));
  const ImageAugmenter& augmenter = *options_.augmenter;
  const auto n = static_cast<int64_t>(samples.size());
  // Mixed with another one of the batch; which, is a function of the epoch and the batch.
  std::vector<int64_t> partners;
  if (augmenter.mixes())
    partners = permutation(n, hash_of(key_of(kAugmentStream, options_.seed, epoch), static_cast<uint64_t>(index)));
  DS_ASSIGN(ImageAugmenter::Mixed mixed, augmenter.transform(part.inputs, false, epoch, samples, partners));
  part.inputs = std::move(mixed.images);
  std::vector<int64_t> all(samples.size());
  std::iota(all.begin(), all.end(), 0);
  DS_TRY(part.read(all, x, y));
  if (!augmenter.mixes()) return {};
  const int64_t columns = part.is_classification() ? part.num_classes() : y.num_elements() / std::max<int64_t>(n, 1);
  graph::Dims dims = part.is_classification() ? graph::Dims{n, columns} : y.dims();
  graph::Tensor weights(DType::kF32, std::move(dims));
  float* const to = weights.as<float>();
  std::fill_n(to, weights.num_elements(), 0.0f);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t other = partners[static_cast<size_t>(i)];
    const auto own = static_cast<float>(mixed.weights[static_cast<size_t>(i)]);
    for (const auto& [row, weight] : {std::pair(i, own), std::pair(other, 1 - own)}) {
      if (part.is_classification())
        to[i * columns + y.as<int64_t>()[row]] += weight;
      else
        for (int64_t c = 0; c < columns; ++c) to[i * columns + c] += weight * y.as<float>()[row * columns + c];
    }
  }
  y = std::move(weights);
  return {};
}

BatchStream::BatchStream(const DataLoader& loader, int64_t epoch, int64_t first, size_t depth)
    : depth_(std::max<size_t>(depth, 1)) {
  try {
    thread_ = std::thread([this, &loader, epoch, first] { run(loader, epoch, first); });
  } catch (const std::exception& e) {
    finish(
        make_error(ErrorCode::kIo, "[data] cannot start the loading thread: {}; raise the limit of threads", e.what()));
  }
}

BatchStream::~BatchStream() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void BatchStream::finish(Status status) {
  {
    const std::lock_guard lock(mutex_);
    error_ = std::move(status);
    finished_ = true;
  }
  changed_.notify_all();
}

void BatchStream::run(const DataLoader& loader, int64_t epoch, int64_t first) {
  try {
    for (int64_t index = first; index < loader.num_batches(); ++index) {
      Batch batch;
      Status status = loader.batch(epoch, index, batch.x, batch.y);
      if (!status.ok()) return finish(std::move(status).note(fmt::format("in batch {} of epoch {}", index, epoch)));
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stop_ || ready_.size() < depth_; });
      if (stop_) return;
      ready_.push_back(std::move(batch));
      lock.unlock();
      changed_.notify_all();
    }
    finish({});
  } catch (const std::exception& e) {
    finish(make_error(ErrorCode::kIo, "[data] the loading thread failed: {}; use a smaller batch_size", e.what()));
  }
}

Result<bool> BatchStream::next(graph::Tensor& x, graph::Tensor& y) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return finished_ || !ready_.empty(); });
  if (ready_.empty()) {
    if (!error_.ok()) return error_;
    return false;
  }
  x = std::move(ready_.front().x);
  y = std::move(ready_.front().y);
  ready_.pop_front();
  lock.unlock();
  changed_.notify_all();
  return true;
}

}  // namespace deepseek::data
