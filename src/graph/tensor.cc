#include "graph/tensor.h"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <new>

namespace deepseek::graph {

namespace {

constexpr size_t kHugePage = size_t{2} << 20;

// Blocks that were given back, so that batch after batch does not have the kernel clear pages anew: the latest ones, of
// moderate size. What nobody asked for again goes back to the kernel as others come.
class Recycled {
 public:
  static constexpr size_t kLargest = size_t{32} << 20, kAll = size_t{32} << 20;
  // Null where there is none of this size.
  void* take(size_t bytes) {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(blocks_.rbegin(), blocks_.rend(), [&](const Block& b) { return b.bytes == bytes; });
    if (found == blocks_.rend()) return nullptr;
    void* const data = found->data;
    blocks_.erase(std::next(found).base());
    total_ -= bytes;
    return data;
  }
  void keep(size_t bytes, void* data) {
    if (bytes > kLargest) {
      munmap(data, bytes);
      return;
    }
    const std::lock_guard lock(mutex_);
    blocks_.push_back({bytes, data});
    for (total_ += bytes; total_ > kAll; blocks_.pop_front()) {
      total_ -= blocks_.front().bytes;
      munmap(blocks_.front().data, blocks_.front().bytes);
    }
  }

 private:
  struct Block {
    size_t bytes;  // as mapped
    void* data;
  };
  std::mutex mutex_;
  std::deque<Block> blocks_;  // the latest last
  size_t total_ = 0;
};
Recycled*& blocks() {
  static Recycled* all = [] {
    // A child takes another, as a thread that it does not have may have locked this one.
    pthread_atfork(nullptr, nullptr, [] { blocks() = new Recycled; });
    return new Recycled;
  }();
  return all;
}
Recycled& recycled() { return *blocks(); }  // outlives tensors that die late

// Memory from the kernel, zeros that cost nothing until somebody touches them, in pages of 2 MiB where they fit and the
// system has them: the first run of a step of gigabytes is half a million faults otherwise.
// Where zeros are not asked for, a block that was used before will do.
std::shared_ptr<void> map_pages(size_t bytes, bool zeros) {
  const size_t spare = bytes >= kHugePage ? kHugePage : 0;  // to begin at a huge page
  void* mapped = zeros ? nullptr : recycled().take(bytes + spare);
  if (mapped == nullptr)
    mapped = mmap(nullptr, bytes + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  void* data = mapped;
  if (size_t space = bytes + spare; spare > 0) {
    data = std::align(kHugePage, bytes, data, space);
#if defined(MADV_HUGEPAGE)
    madvise(data, bytes, MADV_HUGEPAGE);  // a hint: where it fails, pages are small
#endif
  }
  return std::shared_ptr<void>(data, [mapped, size = bytes + spare](void*) { recycled().keep(size, mapped); });
}

}  // namespace

namespace {

// More than any memory; sizes that overflow are beyond it, too.
void require_possible(const TensorType& type) {
  constexpr int64_t kMost = int64_t{1} << 46;
  if (const int64_t n = type.num_elements(); n < 0 || n > kMost) throw std::bad_alloc();
}

}  // namespace

Tensor::Tensor(TensorType type) : type_(std::move(type)) {
  require_possible(type_);
  const size_t bytes = (std::max<size_t>(type_.num_bytes(), 1) + 63) / 64 * 64;
  // What malloc would map afresh, too.
  if (constexpr size_t kMapped = size_t{4} << 20; bytes >= kMapped) {
    owner_ = map_pages(bytes, false);
    data_ = owner_.get();
    return;
  }
  data_ = std::aligned_alloc(64, bytes);
  if (data_ == nullptr) throw std::bad_alloc();
  owner_ = std::shared_ptr<void>(data_, [](void* p) { std::free(p); });
}

Tensor::Tensor(TensorType type, void* data, std::shared_ptr<void> owner)
    : type_(std::move(type)), data_(data), owner_(std::move(owner)) {}

Tensor Tensor::zeros(DType dtype, Dims dims) {
  const TensorType type{dtype, std::move(dims)};
  require_possible(type);
  const size_t bytes = type.num_bytes();
  // Large ones are zeros as they come: an optimiser's moments are first touched by all threads, in the first step.
  if (constexpr size_t kMapped = size_t{1} << 20; bytes >= kMapped) {
    std::shared_ptr<void> pages = map_pages(bytes, true);
    void* const data = pages.get();
    return Tensor(type, data, std::move(pages));
  }
  Tensor t(type);
  std::memset(t.data_, 0, bytes);
  return t;
}

Tensor Tensor::full(DType dtype, Dims dims, double value) {
  Tensor t(dtype, std::move(dims));
  for (int64_t i = 0; i < t.num_elements(); ++i) t.set(i, value);
  return t;
}

Tensor Tensor::clone() const {
  Tensor t(type_);
  std::memcpy(t.data_, data_, num_bytes());
  return t;
}

Tensor Tensor::cast(DType dtype) const {
  if (dtype == type_.dtype) return clone();
  Tensor t(type_.with_dtype(dtype));
  for (int64_t i = 0; i < num_elements(); ++i) t.set(i, at(i));
  return t;
}

Tensor Tensor::reshaped(Dims dims) const { return Tensor(TensorType{type_.dtype, std::move(dims)}, data_, owner_); }

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  TensorType type = type_;
  type.dims[0] = end - begin;
  const size_t row_bytes = type_.dims[0] == 0 ? 0 : num_bytes() / static_cast<size_t>(type_.dims[0]);
  return Tensor(std::move(type), static_cast<char*>(data_) + static_cast<size_t>(begin) * row_bytes, owner_);
}

}  // namespace deepseek::graph
