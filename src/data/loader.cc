#include "data/loader.h"

#include <algorithm>
#include <exception>
#include <numeric>
#include <span>

#include "base/guard.h"
#include "base/random.h"
#include "base/strings.h"
#include "base/threads.h"

namespace deepseek::data {
namespace {

// Independent streams of random numbers from one seed.
constexpr uint64_t kShuffleStream = 0x5348, kAugmentStream = 0x4147;

uint64_t key_of(uint64_t stream, uint64_t seed, int64_t epoch) {
  return hash_of(stream, seed, static_cast<uint64_t>(epoch));
}

// The one input of images, which augmentation changes.
Result<const Field*> images_of(const Dataset& dataset) {
  const Field* images = nullptr;
  std::vector<std::string> inputs;
  for (const Field* f : dataset.inputs()) {
    inputs.push_back(fmt::format("'{}', {} per sample", f->name, to_string(f->sample)));
    if (f->sample.rank() != 3 || !f->is_normalised()) continue;
    if (images != nullptr)
      return invalid("[data] augmentation needs one input of images, got '{}' and '{}'", images->name, f->name);
    images = f;
  }
  if (images == nullptr)
    return invalid("[data] augmentation needs images [N,C,H,W] of u8 or f32, got {}", join(inputs, "; "));
  return images;
}

Status check_mixes(const Dataset& dataset) {
  for (const Field& f : dataset.fields()) {
    if (f.role == Role::kInput && !f.is_normalised())
      return invalid("[data] cutmix and mixup need inputs of u8 or f32, '{}' is {} per sample", f.name,
                     to_string(f.sample));
    if (!f.is_classes()) continue;
    if (f.sample.rank() != 0 || f.num_classes() < 2)
      return invalid(
          "[data] cutmix and mixup need labels [N] of 2 classes or more, '{}' is {} per sample and has {} "
          "classes",
          f.name, to_string(f.sample), f.num_classes());
    if (!f.ignored) continue;
    DS_ASSIGN(const Batch all, dataset.read_targets(all_rows(dataset.size())));
    const graph::Tensor& labels = all.at(f.name);
    const auto* const first = labels.as<int64_t>();
    if (std::find(first, first + labels.num_elements(), *f.ignored) != first + labels.num_elements())
      return invalid("[data] cutmix and mixup need a class for each sample, some of '{}' have the ignored label {}",
                     f.name, *f.ignored);
  }
  return {};
}

// Each sample's own row and its partner's, by weight: of labels as rows of `classes`.
graph::Tensor mixed_rows(const graph::Tensor& from, int64_t classes, std::span<const int64_t> partners,
                         std::span<const double> weights) {
  const auto n = static_cast<int64_t>(partners.size());
  const int64_t columns = classes > 0 ? classes : from.num_elements() / std::max<int64_t>(n, 1);
  graph::Tensor out(DType::kF32, classes > 0 ? graph::Dims{n, classes} : from.dims());
  parallel_for(n, std::max<int64_t>(1, 16384 / std::max<int64_t>(columns, 1)), [&](int64_t begin, int64_t end) {
    std::fill_n(out.as<float>() + begin * columns, (end - begin) * columns, 0.0f);
    for (int64_t i = begin; i < end; ++i) {
      float* const to = out.as<float>() + i * columns;
      const auto own = static_cast<float>(weights[static_cast<size_t>(i)]);
      for (const auto& [row, weight] : {std::pair(i, own), std::pair(partners[static_cast<size_t>(i)], 1 - own)}) {
        if (classes > 0)
          to[from.as<int64_t>()[row]] += weight;
        else
          for (int64_t c = 0; c < columns; ++c) to[c] += weight * from.as<float>()[row * columns + c];
      }
    }
  });
  return out;
}

}  // namespace

DataLoader::DataLoader(DatasetPtr dataset, LoaderOptions options)
    : dataset_(std::move(dataset)), options_(std::move(options)), cache_(std::make_unique<Cache>()) {}

Result<DataLoader> DataLoader::create(DatasetPtr dataset, LoaderOptions options) {
  if (dataset == nullptr) return invalid("[data] there is no data set to load from");
  DS_TRY(dataset->validate());
  if (options.batch_size < 1) return invalid("[data] batch_size is {}, expected at least 1", options.batch_size);
  if (options.augmenter) {
    DS_TRY(images_of(*dataset).status());
    if (options.augmenter->mixes()) DS_TRY(check_mixes(*dataset));
  }
  if (options.drop_last && options.batch_size > dataset->size()) {
    return invalid("[data] batch_size {} with drop_last leaves no batch of {} samples; use a smaller one",
                   options.batch_size, dataset->size());
  }
  return DataLoader(std::move(dataset), std::move(options));
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

Result<Batch> DataLoader::batch(int64_t epoch, int64_t index) const {
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
  if (!options_.augmenter) return dataset_->read(samples);
  return guarded("[data] while augmenting", [&] { return read_augmented(epoch, index, samples); });
}

Result<Batch> DataLoader::read_augmented(int64_t epoch, int64_t index, std::span<const int64_t> samples) const {
  DS_ASSIGN(Batch batch, dataset_->read_raw(samples));
  DS_ASSIGN(const Field* images, images_of(*dataset_));
  const ImageAugmenter& augmenter = *options_.augmenter;
  // Mixed with another one of the batch; which, is a function of the epoch and the batch.
  std::vector<int64_t> partners;
  if (augmenter.mixes())
    partners = permutation(static_cast<int64_t>(samples.size()),
                           hash_of(key_of(kAugmentStream, options_.seed, epoch), static_cast<uint64_t>(index)));
  DS_ASSIGN(ImageAugmenter::Mixed mixed, augmenter.transform(batch.at(images->name), false, epoch, samples, partners));
  batch[images->name] = std::move(mixed.images);
  DS_ASSIGN(batch, dataset_->normalise(std::move(batch)));
  if (!augmenter.mixes()) return batch;
  for (const Field& f : dataset_->fields()) {
    if (f.name == images->name) continue;
    graph::Tensor& tensor = batch.at(f.name);
    tensor = mixed_rows(tensor, f.is_classes() ? f.num_classes() : 0, partners, mixed.weights);
  }
  return batch;
}

BatchStream::BatchStream(const DataLoader& loader, int64_t epoch, int64_t first, size_t depth, int64_t end_epoch)
    : most_(std::max<size_t>(depth, 1)) {
  try {
    thread_ = std::thread(
        [this, &loader, epoch, first, end_epoch] { run(loader, epoch, first, std::max(end_epoch, epoch + 1)); });
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
  taken_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void BatchStream::finish(Status status) {
  {
    const std::lock_guard lock(mutex_);
    error_ = std::move(status);
    finished_ = true;
  }
  made_.notify_one();
}

bool BatchStream::put(Batch batch) {
  std::unique_lock lock(mutex_);
  if (ready_.size() >= most_) {
    maker_waits_ = true;
    taken_.wait(lock, [this] { return stop_ || ready_.size() <= most_ / 2; });
    maker_waits_ = false;
  }
  if (stop_) return false;
  ready_.push_back(std::move(batch));
  const bool wake = taker_waits_;
  lock.unlock();
  if (wake) made_.notify_one();
  return true;
}

void BatchStream::run(const DataLoader& loader, int64_t epoch, int64_t first, int64_t end_epoch) {
  try {
    bool is_first = true;
    for (; epoch < end_epoch; ++epoch, first = 0)
      for (int64_t index = first; index < loader.num_batches(); ++index) {
        Result<Batch> batch = loader.batch(epoch, index);
        if (!batch.ok())
          return finish(std::move(batch).status().note(fmt::format("in batch {} of epoch {}", index, epoch)));
        if (is_first) {
          size_t bytes = 1;
          for (const auto& [name, tensor] : *batch) bytes += tensor.num_bytes();
          const std::lock_guard lock(mutex_);
          most_ = std::max(most_, std::min(kMostAhead, kAhead / bytes));
          is_first = false;
        }
        if (!put(std::move(*batch))) return;
      }
    finish({});
  } catch (const std::exception& e) {
    finish(make_error(ErrorCode::kIo, "[data] the loading thread failed: {}; use a smaller batch_size", e.what()));
  }
}

Result<std::optional<Batch>> BatchStream::next() {
  std::unique_lock lock(mutex_);
  if (ready_.empty() && !finished_) {
    taker_waits_ = true;
    made_.wait(lock, [this] { return finished_ || !ready_.empty(); });
    taker_waits_ = false;
  }
  std::optional<Batch> batch;
  if (ready_.empty()) {
    if (!error_.ok()) return error_;
    return batch;
  }
  batch = std::move(ready_.front());
  ready_.pop_front();
  const bool wake = maker_waits_ && ready_.size() <= most_ / 2;
  lock.unlock();
  if (wake) taken_.notify_one();
  return batch;
}

}  // namespace deepseek::data
