#include "tables/spill.h"

#include <arrow/io/file.h>
#include <arrow/ipc/reader.h>
#include <arrow/ipc/writer.h>

#include <cstdio>

namespace deepseek::tables {

namespace {

struct Spill {
  Spill(OpenStream stream, std::string file) : open(std::move(stream)), path(std::move(file)) {}
  Spill(const Spill&) = delete;
  Spill& operator=(const Spill&) = delete;
  OpenStream open;
  std::string path;
  bool complete = false;
  ~Spill() { std::remove(path.c_str()); }
};

// Writes each batch it gives.
class Keeping : public arrow::RecordBatchReader {
 public:
  Keeping(std::shared_ptr<Spill> spill, std::shared_ptr<arrow::RecordBatchReader> inner,
          std::shared_ptr<arrow::io::FileOutputStream> file, std::shared_ptr<arrow::ipc::RecordBatchWriter> writer)
      : spill_(std::move(spill)), inner_(std::move(inner)), file_(std::move(file)), writer_(std::move(writer)) {}
  std::shared_ptr<arrow::Schema> schema() const override { return inner_->schema(); }
  arrow::Status ReadNext(std::shared_ptr<arrow::RecordBatch>* batch) override {
    ARROW_RETURN_NOT_OK(inner_->ReadNext(batch));
    if (*batch) return writer_->WriteRecordBatch(**batch);
    if (spill_->complete) return {};
    ARROW_RETURN_NOT_OK(writer_->Close());
    ARROW_RETURN_NOT_OK(file_->Close());
    spill_->complete = true;
    return {};
  }

 private:
  std::shared_ptr<Spill> spill_;
  std::shared_ptr<arrow::RecordBatchReader> inner_;
  std::shared_ptr<arrow::io::FileOutputStream> file_;
  std::shared_ptr<arrow::ipc::RecordBatchWriter> writer_;
};

}  // namespace

OpenStream spilled(OpenStream open, const std::string& path) {
  auto spill = std::make_shared<Spill>(std::move(open), path);
  return [spill]() -> Result<std::shared_ptr<arrow::RecordBatchReader>> {
    if (spill->complete) {
      // Read, not mapped, so that memory holds a batch at a time.
      DS_ARROW_ASSIGN(const auto file, arrow::io::ReadableFile::Open(spill->path));
      DS_ARROW_ASSIGN(auto reader, arrow::ipc::RecordBatchStreamReader::Open(file));
      return std::shared_ptr<arrow::RecordBatchReader>(std::move(reader));
    }
    DS_ASSIGN(auto inner, spill->open());
    DS_ARROW_ASSIGN(const auto file, arrow::io::FileOutputStream::Open(spill->path));
    DS_ARROW_ASSIGN(auto writer, arrow::ipc::MakeStreamWriter(file, inner->schema()));
    return std::shared_ptr<arrow::RecordBatchReader>(
        std::make_shared<Keeping>(spill, std::move(inner), file, std::move(writer)));
  };
}

}  // namespace deepseek::tables
