#include "tables/guards.h"

#include <arrow/io/transform.h>

#include <algorithm>
#include <string_view>

#include "base/memory.h"

namespace deepseek::tables {
namespace {

// Also asks, before it takes much at once, whether that is there now.
class AvailablePool : public arrow::CappedMemoryPool {
 public:
  using CappedMemoryPool::CappedMemoryPool;
  using MemoryPool::Allocate;
  using MemoryPool::Reallocate;
  arrow::Status Allocate(int64_t size, int64_t alignment, uint8_t** out) override {
    ARROW_RETURN_NOT_OK(fits(size));
    return CappedMemoryPool::Allocate(size, alignment, out);
  }
  arrow::Status Reallocate(int64_t old_size, int64_t new_size, int64_t alignment, uint8_t** ptr) override {
    ARROW_RETURN_NOT_OK(fits(new_size - old_size));
    return CappedMemoryPool::Reallocate(old_size, new_size, alignment, ptr);
  }

 private:
  static arrow::Status fits(int64_t more) {
    constexpr int64_t kMuch = int64_t{1} << 26;
    if (more < kMuch || static_cast<size_t>(more) < available_memory() / 10 * 9) return {};
    return arrow::Status::OutOfMemory("it would take ", more, " bytes of memory at once, more than there is");
  }
};

class JsonLines {
 public:
  arrow::Status check(std::string_view text, bool first) {
    if (text.empty() && depth_ > 0) return wrong("the object doesn't end");
    if (first && text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
    for (const char c : text) {
      if (c == '\n') {
        if (depth_ > 0) return wrong("expected an object that ends on its line");
        ++line_;
      } else if (in_string_) {
        if (escaped_)
          escaped_ = false;
        else if (c == '\\')
          escaped_ = true;
        else
          in_string_ = c != '"';
      } else if (c == '{' || (c == '[' && depth_ > 0)) {
        if (++depth_ > kDeepest) return wrong("nested deeper than ", kDeepest, " levels");
      } else if (depth_ == 0) {
        if (c != ' ' && c != '\t' && c != '\r') return wrong("expected an object, {...}");
      } else if (c == '}' || c == ']') {
        --depth_;
      } else if (c == '"') {
        in_string_ = true;
      }
    }
    return {};
  }

 private:
  static constexpr int kDeepest = 64;
  template <class... Args>
  arrow::Status wrong(Args&&... what) const {
    return arrow::Status::Invalid("line ", line_, ": ", std::forward<Args>(what)...);
  }
  int64_t line_ = 1;
  int depth_ = 0;
  bool in_string_ = false, escaped_ = false;
};

class Validated : public arrow::RecordBatchReader {
 public:
  explicit Validated(std::shared_ptr<arrow::RecordBatchReader> inner) : inner_(std::move(inner)) {}
  std::shared_ptr<arrow::Schema> schema() const override { return inner_->schema(); }
  arrow::Status ReadNext(std::shared_ptr<arrow::RecordBatch>* batch) override {
    ARROW_RETURN_NOT_OK(inner_->ReadNext(batch));
    if (*batch == nullptr) return {};
    const arrow::Status status = (*batch)->ValidateFull();
    if (status.ok()) return status;
    batch->reset();
    return status.WithMessage("the data is damaged: ", status.message());
  }

 private:
  std::shared_ptr<arrow::RecordBatchReader> inner_;
};

class Growing : public arrow::RecordBatchReader {
 public:
  explicit Growing(OpenBlocks open) : open_(std::move(open)) {}
  arrow::Status begin() {
    for (;;) {
      const auto opened = open_(block_, schema_);
      if (opened.ok()) {
        inner_ = *opened;
        schema_ = inner_->schema();
        return {};
      }
      if (!is_long_row(opened.status()) || block_ >= kLongestRow) return explained(opened.status());
      block_ = larger(block_);
    }
  }
  std::shared_ptr<arrow::Schema> schema() const override { return schema_; }
  arrow::Status ReadNext(std::shared_ptr<arrow::RecordBatch>* batch) override {
    for (;;) {
      const arrow::Status status = inner_->ReadNext(batch);
      if (!status.ok()) {
        if (!is_long_row(status) || block_ >= kLongestRow) return explained(status);
        block_ = larger(block_);
        ARROW_RETURN_NOT_OK(begin());
        skip_ = given_;
        continue;
      }
      if (*batch == nullptr) return {};
      const int64_t known = std::min(skip_, (*batch)->num_rows());
      skip_ -= known;
      if (known == (*batch)->num_rows() && known > 0) continue;
      if (known > 0) *batch = (*batch)->Slice(known);
      given_ += (*batch)->num_rows();
      return {};
    }
  }

 private:
  OpenBlocks open_;
  std::shared_ptr<arrow::RecordBatchReader> inner_;
  std::shared_ptr<arrow::Schema> schema_;
  int64_t block_ = kBlock, given_ = 0, skip_ = 0;
};

}  // namespace

arrow::MemoryPool* capped_pool() {
  static AvailablePool pool(arrow::default_memory_pool(), static_cast<int64_t>(machine_memory() / 10 * 9));
  return &pool;
}

std::shared_ptr<arrow::io::InputStream> checked_json_lines(std::shared_ptr<arrow::io::InputStream> stream) {
  return std::make_shared<arrow::io::TransformInputStream>(
      std::move(stream),
      [lines = std::make_shared<JsonLines>(), first = true](
          const std::shared_ptr<arrow::Buffer>& buffer) mutable -> arrow::Result<std::shared_ptr<arrow::Buffer>> {
        ARROW_RETURN_NOT_OK(lines->check(std::string_view(*buffer), first));
        first = false;
        return buffer;
      });
}

std::shared_ptr<arrow::RecordBatchReader> validated(std::shared_ptr<arrow::RecordBatchReader> inner) {
  return std::make_shared<Validated>(std::move(inner));
}

arrow::Result<std::shared_ptr<arrow::RecordBatchReader>> growing(OpenBlocks open) {
  auto reader = std::make_shared<Growing>(std::move(open));
  ARROW_RETURN_NOT_OK(reader->begin());
  return std::shared_ptr<arrow::RecordBatchReader>(std::move(reader));
}

int64_t larger(int64_t block) { return std::min(block * 8, kLongestRow); }

bool is_long_row(const arrow::Status& status) {
  return status.IsInvalid() && status.message().find("straddling object") != std::string::npos;
}

arrow::Status explained(const arrow::Status& status) {
  if (!is_long_row(status)) return status;
  return status.WithMessage("a row is longer than ", kLongestRow >> 20, " MiB; is a quotation mark left open?");
}

}  // namespace deepseek::tables
