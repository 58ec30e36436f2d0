#include "tables/spill.h"

#include <arrow/io/file.h>
#include <arrow/ipc/reader.h>
#include <arrow/ipc/writer.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "base/files.h"

namespace deepseek::tables {

namespace {

struct Spill {
  Spill(OpenStream stream, std::string where) : open(std::move(stream)), folder(std::move(where)) {}
  OpenStream open;
  std::string folder;
  std::shared_ptr<arrow::io::ReadableFile> complete;
};

// A file without a name: nobody else can plant or see it, and it is gone with its last descriptor, however that ends.
Result<FileDescriptor> nameless_file(const std::string& folder) {
  DS_TRY(check_path(folder));
  FileDescriptor file(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (file.get() >= 0) return file;
  if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL) return system_error("create a file in", folder, errno);
  std::string name = folder + "/.deepseek-data-XXXXXX";  // of file systems that can't
  file = FileDescriptor(::mkostemp(name.data(), O_CLOEXEC));
  if (file.get() < 0 || ::unlink(name.c_str()) != 0) return system_error("create a file in", folder, errno);
  return file;
}

// Writes each batch it gives.
class Keeping : public arrow::RecordBatchReader {
 public:
  Keeping(std::shared_ptr<Spill> spill, std::shared_ptr<arrow::RecordBatchReader> inner, FileDescriptor file,
          std::shared_ptr<arrow::io::FileOutputStream> out, std::shared_ptr<arrow::ipc::RecordBatchWriter> writer)
      : spill_(std::move(spill)),
        inner_(std::move(inner)),
        file_(std::move(file)),
        out_(std::move(out)),
        writer_(std::move(writer)) {}
  std::shared_ptr<arrow::Schema> schema() const override { return inner_->schema(); }
  arrow::Status ReadNext(std::shared_ptr<arrow::RecordBatch>* batch) override {
    ARROW_RETURN_NOT_OK(inner_->ReadNext(batch));
    if (*batch) return writer_->WriteRecordBatch(**batch);
    if (file_.get() < 0) return {};
    ARROW_RETURN_NOT_OK(writer_->Close());
    ARROW_RETURN_NOT_OK(out_->Close());
    return arrow::io::ReadableFile::Open(file_.release()).Value(&spill_->complete);
  }

 private:
  std::shared_ptr<Spill> spill_;
  std::shared_ptr<arrow::RecordBatchReader> inner_;
  FileDescriptor file_;
  std::shared_ptr<arrow::io::FileOutputStream> out_;
  std::shared_ptr<arrow::ipc::RecordBatchWriter> writer_;
};

}  // namespace

OpenStream spilled(OpenStream open, const std::string& folder) {
  auto spill = std::make_shared<Spill>(std::move(open), folder);
  return [spill]() -> Result<std::shared_ptr<arrow::RecordBatchReader>> {
    if (spill->complete) {
      // Read, not mapped, so that memory holds a batch at a time; by positions of its own, since there may be several.
      DS_ARROW_ASSIGN(const int64_t bytes, spill->complete->GetSize());
      DS_ARROW_ASSIGN(const auto stream, arrow::io::RandomAccessFile::GetStream(spill->complete, 0, bytes));
      DS_ARROW_ASSIGN(auto reader, arrow::ipc::RecordBatchStreamReader::Open(stream));
      return std::shared_ptr<arrow::RecordBatchReader>(std::move(reader));
    }
    DS_ASSIGN(auto inner, spill->open());
    DS_ASSIGN(FileDescriptor file, nameless_file(spill->folder));
    const int copy = ::fcntl(file.get(), F_DUPFD_CLOEXEC, 0);  // the stream closes its own
    if (copy < 0) return system_error("write in", spill->folder, errno);
    DS_ARROW_ASSIGN(const auto out, arrow::io::FileOutputStream::Open(copy));
    DS_ARROW_ASSIGN(auto writer, arrow::ipc::MakeStreamWriter(out, inner->schema()));
    return std::shared_ptr<arrow::RecordBatchReader>(
        std::make_shared<Keeping>(spill, std::move(inner), std::move(file), out, std::move(writer)));
  };
}

}  // namespace deepseek::tables
