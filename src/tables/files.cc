#include "tables/files.h"

#include <arrow/csv/api.h>
#include <arrow/io/api.h>
#include <arrow/io/transform.h>
#include <arrow/ipc/api.h>
#include <arrow/json/api.h>
#include <arrow/util/compression.h>
#include <iconv.h>
#include <parquet/arrow/reader.h>
#include <parquet/arrow/writer.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "base/files.h"
#include "base/guard.h"
#include "base/strings.h"
#include "io/atomic_file.h"
#include "tables/guards.h"

namespace deepseek::tables {

namespace {

using Reader = std::shared_ptr<arrow::RecordBatchReader>;

struct Suffix {
  std::string_view suffix, format;
};
constexpr Suffix kSuffixes[] = {{".csv", "csv"},         {".txt", "csv"},      {".tsv", "tsv"},
                                {".jsonl", "jsonl"},     {".ndjson", "jsonl"}, {".json", "jsonl"},
                                {".parquet", "parquet"}, {".pq", "parquet"},   {".arrow", "arrow"},
                                {".feather", "arrow"},   {".ipc", "arrow"}};
constexpr std::pair<std::string_view, arrow::Compression::type> kCompressions[] = {
    {".gz", arrow::Compression::GZIP},
    {".bz2", arrow::Compression::BZ2},
    {".zst", arrow::Compression::ZSTD},
    {".lz4", arrow::Compression::LZ4_FRAME}};

std::string lower_suffix(const std::filesystem::path& path) {
  std::string suffix = path.extension().string();
  std::transform(suffix.begin(), suffix.end(), suffix.begin(), [](unsigned char c) { return std::tolower(c); });
  return suffix;
}

struct Kind {
  std::string format;
  arrow::Compression::type compression = arrow::Compression::UNCOMPRESSED;
};

Result<Kind> kind_of(const std::string& name, const FileOptions& options) {
  Kind kind;
  std::filesystem::path path = name;
  for (const auto& [suffix, compression] : kCompressions)
    if (lower_suffix(path) == suffix) {
      kind.compression = compression;
      path.replace_extension();
    }
  kind.format = options.format;
  for (const Suffix& s : kSuffixes)
    if (kind.format.empty() && lower_suffix(path) == s.suffix) kind.format = s.format;
  if (kind.format.empty())
    return invalid("'{}': its name does not say what it is; name the format: csv, tsv, jsonl, parquet or arrow", name);
  if (kind.format != "csv" && kind.format != "tsv" && kind.format != "jsonl" && kind.format != "parquet" &&
      kind.format != "arrow")
    return invalid("'{}': unknown format '{}'; there are csv, tsv, jsonl, parquet and arrow", name, kind.format);
  if (kind.compression != arrow::Compression::UNCOMPRESSED && (kind.format == "parquet" || kind.format == "arrow"))
    return invalid("'{}': {} files are compressed inside; unpack the file first", name, kind.format);
  return kind;
}

// Text of another encoding as UTF-8, a buffer at a time; what a buffer breaks off goes on in the next.
class Decoder {
 public:
  static Result<std::shared_ptr<Decoder>> make(const std::string& path, const std::string& encoding) {
    auto decoder = std::make_shared<Decoder>();
    decoder->encoding_ = encoding;
    decoder->state_ = iconv_open("UTF-8", encoding.c_str());
    if (decoder->state_ == reinterpret_cast<iconv_t>(-1))
      return invalid("'{}': encoding: '{}' is not known here; `iconv --list` tells which are", path, encoding);
    return decoder;
  }
  Decoder() = default;
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  ~Decoder() {
    if (state_ != reinterpret_cast<iconv_t>(-1)) iconv_close(state_);
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> decode(const std::shared_ptr<arrow::Buffer>& buffer) {
    rest_.append(reinterpret_cast<const char*>(buffer->data()), static_cast<size_t>(buffer->size()));
    if (buffer->size() == 0 && !rest_.empty())
      return arrow::Status::Invalid("the text ends within a character of ", encoding_);
    std::string out(4 * rest_.size() + 16, '\0');
    char *from = rest_.data(), *to = out.data();
    size_t left = rest_.size(), room = out.size();
    const size_t done = iconv(state_, &from, &left, &to, &room);
    if (done == static_cast<size_t>(-1) && errno != EINVAL)
      return arrow::Status::Invalid("byte ", read_ + static_cast<int64_t>(rest_.size() - left) + 1, " is not ",
                                    encoding_);
    read_ += static_cast<int64_t>(rest_.size() - left);
    rest_.erase(0, rest_.size() - left);
    out.resize(out.size() - room);
    return arrow::Buffer::FromString(std::move(out));
  }

 private:
  std::string encoding_, rest_;
  iconv_t state_ = reinterpret_cast<iconv_t>(-1);
  int64_t read_ = 0;
};

// As a stream, unpacked and in UTF-8; errors of the system name the file.
Result<std::shared_ptr<arrow::io::InputStream>> open_stream(const std::string& path, const Kind& kind,
                                                            const std::string& encoding = "utf-8") {
  DS_ASSIGN(OpenFile file, open_file(path));
  DS_ARROW_ASSIGN(std::shared_ptr<arrow::io::InputStream> stream,
                  arrow::io::ReadableFile::Open(file.file.release(), capped_pool()));
  if (kind.compression != arrow::Compression::UNCOMPRESSED) {
    DS_ARROW_ASSIGN(std::unique_ptr<arrow::util::Codec> codec, arrow::util::Codec::Create(kind.compression));
    // The stream keeps what it needs of the codec.
    DS_ARROW_ASSIGN(stream, arrow::io::CompressedInputStream::Make(codec.get(), stream, capped_pool()));
  }
  if (const std::string name = lower(encoding); name == "utf-8" || name == "utf8") return stream;
  DS_ASSIGN(const auto decoder, Decoder::make(path, encoding));
  return std::shared_ptr<arrow::io::InputStream>(std::make_shared<arrow::io::TransformInputStream>(
      std::move(stream), [decoder](const std::shared_ptr<arrow::Buffer>& buffer) { return decoder->decode(buffer); }));
}

Result<std::shared_ptr<arrow::Schema>> wanted_types(const FileOptions& options) {
  std::vector<std::shared_ptr<arrow::Field>> fields;
  for (const auto& [name, type] : options.types) {
    DS_ASSIGN(std::shared_ptr<arrow::DataType> known, type_of_name(type));
    fields.push_back(arrow::field(name, std::move(known)));
  }
  return arrow::schema(fields);
}

struct CsvOptions {
  arrow::csv::ReadOptions read = arrow::csv::ReadOptions::Defaults();
  arrow::csv::ParseOptions parse = arrow::csv::ParseOptions::Defaults();
  arrow::csv::ConvertOptions convert = arrow::csv::ConvertOptions::Defaults();
};
Result<CsvOptions> csv_options(const Kind& kind, const FileOptions& options) {
  CsvOptions o;
  const std::string delimiter = kind.format == "tsv" && options.delimiter == "," ? "\t" : options.delimiter;
  if (delimiter.size() != 1) return invalid("delimiter: expected one character, got '{}'", options.delimiter);
  o.parse.delimiter = delimiter[0];
  o.parse.newlines_in_values = true;
  o.read.autogenerate_column_names = !options.header;
  o.convert.null_values = options.null_values;
  o.convert.null_values.emplace_back();
  o.convert.strings_can_be_null = true;
  o.convert.quoted_strings_can_be_null = false;
  o.convert.include_columns = options.columns;
  DS_ASSIGN(const std::shared_ptr<arrow::Schema> types, wanted_types(options));
  for (const auto& field : types->fields()) o.convert.column_types[field->name()] = field->type();
  return o;
}

Status named(Status status, const std::string& path) {
  if (status.ok()) return status;
  const bool encoded = status.message().find("invalid UTF8") != std::string::npos;
  return Status(
      status.code(),
      fmt::format("'{}': {}{}", path, status.message(),
                  encoded ? "; if the file has another encoding, name it: encoding latin1, cp1252, ..." : ""));
}
template <class T>
Result<T> named(arrow::Result<T> result, const std::string& path) {
  if (!result.ok()) return named(from_arrow(result.status()), path);
  return std::move(result).ValueUnsafe();
}

// The same the other way, for what Arrow calls.
template <class T>
arrow::Result<T> to_arrow(Result<T> result) {
  if (!result.ok()) return arrow::Status::Invalid(result.status().message());
  return std::move(result).value();
}
arrow::io::IOContext capped_io() { return arrow::io::IOContext(capped_pool()); }

// Keeps the reader that its batches come from, and puts the file's name into their errors.
class NamedReader : public arrow::RecordBatchReader {
 public:
  NamedReader(std::string path, Reader inner, std::shared_ptr<void> keeps = {})
      : path_(std::move(path)), keeps_(std::move(keeps)), inner_(std::move(inner)) {}
  std::shared_ptr<arrow::Schema> schema() const override { return inner_->schema(); }
  arrow::Status ReadNext(std::shared_ptr<arrow::RecordBatch>* batch) override {
    const arrow::Status status = inner_->ReadNext(batch);
    return status.ok() ? status : status.WithMessage("'", path_, "': ", status.message());
  }

 private:
  std::string path_;
  std::shared_ptr<void> keeps_;
  Reader inner_;
};

// The batches of an IPC file, one by one.
class IpcReader : public arrow::RecordBatchReader {
 public:
  explicit IpcReader(std::shared_ptr<arrow::ipc::RecordBatchFileReader> file) : file_(std::move(file)) {}
  std::shared_ptr<arrow::Schema> schema() const override { return file_->schema(); }
  arrow::Status ReadNext(std::shared_ptr<arrow::RecordBatch>* batch) override {
    if (next_ >= file_->num_record_batches()) {
      batch->reset();
      return {};
    }
    return file_->ReadRecordBatch(next_++).Value(batch);
  }

 private:
  std::shared_ptr<arrow::ipc::RecordBatchFileReader> file_;
  int next_ = 0;
};

// Other columns left out, and types that a format carries itself changed to those that options want.
class ChosenReader : public arrow::RecordBatchReader {
 public:
  ChosenReader(Reader inner, std::vector<int> columns, std::shared_ptr<arrow::Schema> schema)
      : inner_(std::move(inner)), columns_(std::move(columns)), schema_(std::move(schema)) {}
  std::shared_ptr<arrow::Schema> schema() const override { return schema_; }
  arrow::Status ReadNext(std::shared_ptr<arrow::RecordBatch>* batch) override {
    ARROW_RETURN_NOT_OK(inner_->ReadNext(batch));
    if (*batch == nullptr) return {};
    ARROW_ASSIGN_OR_RAISE(*batch, (*batch)->SelectColumns(columns_));
    return {};
  }

 private:
  Reader inner_;
  std::vector<int> columns_;
  std::shared_ptr<arrow::Schema> schema_;
};

Result<Reader> choose(Reader reader, const std::vector<std::string>& names) {
  if (names.empty()) return reader;
  std::vector<int> columns;
  std::vector<std::shared_ptr<arrow::Field>> fields;
  for (const std::string& name : names) {
    DS_ASSIGN(const int column, find_column(*reader->schema(), name, "columns"));
    columns.push_back(column);
    fields.push_back(reader->schema()->field(column));
  }
  return Reader(std::make_shared<ChosenReader>(std::move(reader), std::move(columns), arrow::schema(fields)));
}

}  // namespace

std::string format_of(const std::string& path, const FileOptions& options) {
  const Result<Kind> kind = kind_of(path, options);
  return kind.ok() ? kind->format : "";
}

bool is_text_file(const std::string& path, const FileOptions& options) {
  const std::string format = format_of(path, options);
  return !format.empty() && format != "parquet" && format != "arrow";
}

static Result<Reader> open_reader(const std::string& path, const FileOptions& options) {
  DS_ASSIGN(const Kind kind, kind_of(path, options));
  if (kind.format == "parquet" || kind.format == "arrow") {
    if (!options.types.empty())
      return invalid("'{}': {} files carry their types; `types` is for text", path, kind.format);
    DS_ASSIGN(const auto stream, open_stream(path, kind));
    const auto file = std::static_pointer_cast<arrow::io::ReadableFile>(stream);
    Reader reader;
    std::shared_ptr<void> keeps;
    if (kind.format == "arrow") {
      auto how = arrow::ipc::IpcReadOptions::Defaults();
      how.memory_pool = capped_pool();
      DS_ASSIGN(auto ipc, named(arrow::ipc::RecordBatchFileReader::Open(file, how), path));
      reader = std::make_shared<IpcReader>(std::move(ipc));
    } else {
      DS_ASSIGN(auto parquet, named(parquet::arrow::OpenFile(file, capped_pool()), path));
      parquet->set_use_threads(true);
      DS_ASSIGN(reader, named(parquet->GetRecordBatchReader(), path));
      keeps = std::move(parquet);
    }
    return choose(std::make_shared<NamedReader>(path, validated(std::move(reader)), std::move(keeps)), options.columns);
  }
  OpenBlocks open;
  if (kind.format == "jsonl") {
    auto parse = arrow::json::ParseOptions::Defaults();
    parse.newlines_in_values = false;
    DS_ASSIGN(parse.explicit_schema, wanted_types(options));
    open = [path, kind, encoding = options.encoding, parse](
               int64_t block, const std::shared_ptr<arrow::Schema>& schema) -> arrow::Result<Reader> {
      ARROW_ASSIGN_OR_RAISE(auto stream, to_arrow(open_stream(path, kind, encoding)));
      auto read = arrow::json::ReadOptions::Defaults();
      read.block_size = static_cast<int32_t>(block);
      auto as_before = parse;
      if (schema) {
        as_before.explicit_schema = schema;
        as_before.unexpected_field_behavior = arrow::json::UnexpectedFieldBehavior::Error;
      }
      ARROW_ASSIGN_OR_RAISE(auto reader, arrow::json::StreamingReader::Make(checked_json_lines(std::move(stream)), read,
                                                                            as_before, capped_io()));
      return validated(std::move(reader));
    };
  } else {
    DS_ASSIGN(const CsvOptions csv, csv_options(kind, options));
    open = [path, kind, encoding = options.encoding, csv](
               int64_t block, const std::shared_ptr<arrow::Schema>& schema) -> arrow::Result<Reader> {
      ARROW_ASSIGN_OR_RAISE(auto stream, to_arrow(open_stream(path, kind, encoding)));
      CsvOptions as_before = csv;
      as_before.read.block_size = static_cast<int32_t>(block);
      if (schema)
        for (const auto& field : schema->fields()) as_before.convert.column_types[field->name()] = field->type();
      return arrow::csv::StreamingReader::Make(capped_io(), std::move(stream), as_before.read, as_before.parse,
                                               as_before.convert);
    };
  }
  // The file that is not there, or is none, is an error of ours, not of Arrow's.
  DS_TRY(open_file(path).status());
  DS_ASSIGN(Reader reader, named(growing(std::move(open)), path));
  reader = std::make_shared<NamedReader>(path, std::move(reader));
  return kind.format == "jsonl" ? choose(std::move(reader), options.columns) : Result<Reader>(std::move(reader));
}

Result<std::shared_ptr<arrow::RecordBatchReader>> open_table(const std::string& path, const FileOptions& options) {
  return guarded(fmt::format("while reading '{}'", path), [&] { return open_reader(path, options); });
}

static Result<Table> read_whole(const std::string& path, const FileOptions& options) {
  DS_ASSIGN(const Kind kind, kind_of(path, options));
  if (kind.format == "csv" || kind.format == "tsv") {  // blocks in parallel, and types from all of them
    DS_ASSIGN(CsvOptions csv, csv_options(kind, options));
    DS_TRY(open_file(path).status());
    const auto read = [&]() -> arrow::Result<Table> {
      ARROW_ASSIGN_OR_RAISE(const auto stream, to_arrow(open_stream(path, kind, options.encoding)));
      ARROW_ASSIGN_OR_RAISE(const auto reader,
                            arrow::csv::TableReader::Make(capped_io(), stream, csv.read, csv.parse, csv.convert));
      return reader->Read();
    };
    auto table = read();
    for (int64_t block = kBlock; !table.ok() && is_long_row(table.status()) && block < kLongestRow;) {
      block = larger(block);
      csv.read.block_size = static_cast<int32_t>(block);
      table = read();
    }
    if (!table.ok() && !is_long_row(table.status())) {
      csv.read.use_threads = false;  // once more in order: only then errors name the row
      table = read();
    }
    if (!table.ok()) return named(from_arrow(explained(table.status())), path);
    return *table;
  }
  DS_ASSIGN(const auto reader, open_reader(path, options));
  return from_arrow(reader->ToTable());
}

Result<Table> read_table(const std::string& path, const FileOptions& options) {
  return guarded(fmt::format("while reading '{}'", path), [&] { return read_whole(path, options); });
}

namespace {

// Arrow's writers on the writer of an atomic file.
class Sink : public arrow::io::OutputStream {
 public:
  explicit Sink(const io::WriteBytes& write) : write_(write) {}
  using OutputStream::Write;
  arrow::Status Write(const void* data, int64_t n) override {
    const Status status = write_({static_cast<const std::byte*>(data), static_cast<size_t>(n)});
    if (!status.ok()) return arrow::Status::IOError(status.message());
    position_ += n;
    return {};
  }
  arrow::Result<int64_t> Tell() const override { return position_; }
  arrow::Status Close() override {
    closed_ = true;
    return {};
  }
  bool closed() const override { return closed_; }

 private:
  const io::WriteBytes& write_;
  int64_t position_ = 0;
  bool closed_ = false;
};

// A writer of the file's format, made when the schema is known.
class TableWriter {
 public:
  TableWriter(const Kind& kind, const FileOptions& options, std::shared_ptr<Sink> sink)
      : kind_(kind), options_(options), sink_(std::move(sink)) {}
  Status write(const Table& table) {
    if (!schema_) {
      schema_ = table->schema();
      DS_TRY(open());
    } else if (!schema_->Equals(*table->schema())) {
      return invalid("a batch has other columns than the first: {}, expected {}", table->schema()->ToString(),
                     schema_->ToString());
    }
    return from_arrow(parquet_ ? parquet_->WriteTable(*table, kRows) : ipc_->WriteTable(*table));
  }
  Status close() {
    if (!schema_) return invalid("there is no table to write");
    return from_arrow(parquet_ ? parquet_->Close() : ipc_->Close());
  }

 private:
  static constexpr int64_t kRows = 1 << 20;  // of a row group
  Status open() {
    if (kind_.format == "parquet") {
      DS_ARROW_ASSIGN(parquet_, parquet::arrow::FileWriter::Open(*schema_, arrow::default_memory_pool(), sink_));
      return {};
    }
    if (kind_.format == "arrow") {
      DS_ARROW_ASSIGN(ipc_, arrow::ipc::MakeFileWriter(sink_, schema_));
      return {};
    }
    auto csv = arrow::csv::WriteOptions::Defaults();
    csv.delimiter = kind_.format == "tsv" && options_.delimiter == "," ? '\t' : options_.delimiter[0];
    csv.include_header = options_.header;
    DS_ARROW_ASSIGN(ipc_, arrow::csv::MakeCSVWriter(sink_, schema_, csv));
    return {};
  }

  const Kind& kind_;
  const FileOptions& options_;
  std::shared_ptr<Sink> sink_;
  std::shared_ptr<arrow::Schema> schema_;
  std::unique_ptr<parquet::arrow::FileWriter> parquet_;
  std::shared_ptr<arrow::ipc::RecordBatchWriter> ipc_;  // of CSV, too
};

}  // namespace

Status write_tables(const std::string& path, const FileOptions& options,
                    const std::function<Status(const WriteTable&)>& produce) {
  DS_ASSIGN(const Kind kind, kind_of(path, options));
  if (kind.format == "jsonl") return invalid("'{}': tables are written as csv, tsv, parquet or arrow", path);
  if (kind.compression != arrow::Compression::UNCOMPRESSED)
    return invalid("'{}': text is written unpacked; use .parquet for small files", path);
  if (options.delimiter.size() != 1) return invalid("delimiter: expected one character, got '{}'", options.delimiter);
  return io::write_file_atomic(path, [&](const io::WriteBytes& write) -> Status {
    TableWriter writer(kind, options, std::make_shared<Sink>(write));
    DS_TRY(produce([&](const Table& table) { return named(writer.write(table), path); }));
    return named(writer.close(), path);
  });
}

Status write_table(const arrow::Table& table, const std::string& path, const FileOptions& options) {
  return write_tables(path, options, [&](const WriteTable& write) {
    return write(arrow::Table::Make(table.schema(), table.columns(), table.num_rows()));
  });
}

}  // namespace deepseek::tables
