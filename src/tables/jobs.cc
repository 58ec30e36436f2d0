#include "tables/jobs.h"

#include <algorithm>
#include <filesystem>
#include <span>

#include "base/files.h"
#include "base/guard.h"
#include "base/memory.h"
#include "base/strings.h"
#include "io/atomic_file.h"
#include "tables/pipeline.h"
#include "tables/report.h"
#include "tables/source.h"
#include "tables/spill.h"

namespace deepseek::tables {
namespace {

namespace fs = std::filesystem;
using Reader = std::shared_ptr<arrow::RecordBatchReader>;

// 0 where it can't be told.
uintmax_t bytes_of(const std::string& path) {
  std::error_code error;
  const uintmax_t bytes = fs::file_size(path, error);
  return error ? 0 : bytes;
}

// A reader that tells how many rows it gave, and stops where that returns an error.
Reader watched(Reader inner, std::function<Status(int64_t)> tell) {
  class Watched : public arrow::RecordBatchReader {
   public:
    Watched(Reader inner, std::function<Status(int64_t)> tell) : inner_(std::move(inner)), tell_(std::move(tell)) {}
    std::shared_ptr<arrow::Schema> schema() const override { return inner_->schema(); }
    arrow::Status ReadNext(std::shared_ptr<arrow::RecordBatch>* batch) override {
      ARROW_RETURN_NOT_OK(inner_->ReadNext(batch));
      const Status status = *batch ? tell_((*batch)->num_rows()) : Status();
      return status.ok() ? arrow::Status::OK() : arrow::Status::Cancelled(status.message());
    }

   private:
    Reader inner_;
    std::function<Status(int64_t)> tell_;
  };
  return std::make_shared<Watched>(std::move(inner), std::move(tell));
}

struct Shape {
  int64_t rows = 0, columns = 0;
};

class Cleaning {
 public:
  Cleaning(const CleanJob& job, const FileOptions& options, const JobHooks& hooks)
      : job_(job), options_(options), hooks_(hooks), fitted_(fs::path(job.steps).extension() == ".json") {}

  Status run() {
    if (fitted_) {
      DS_ASSIGN(pipeline_, Pipeline::load(job_.steps));
    } else {
      const Result<std::string> text = read_text(job_.steps);
      if (!text.ok()) return unread(job_.steps, text.status());
      DS_ASSIGN(pipeline_, Pipeline::parse(*text, job_.steps));
    }
    if (fitted_ && !job_.save.empty())
      return invalid("--save: '{}' is fitted already; steps to fit come as YAML", job_.steps);
    // A table takes several times the memory of its file while it is cleaned.
    DS_TRY(job_.stream || bytes_of(job_.file) > machine_memory() / 4 ? by_batches() : at_once());
    for (const std::string& note : pipeline_.notes()) hooks_.message(note);
    hooks_.message(fmt::format("{}: {} rows, {} columns -> {} rows, {} columns", job_.file, from_.rows, from_.columns,
                               to_.rows, to_.columns));
    if (!job_.output.empty()) hooks_.message("written: " + job_.output);
    if (job_.save.empty()) return {};
    DS_TRY(pipeline_.save(job_.save));
    hooks_.message(fmt::format("saved: {}\nNext: deepseek data clean {} NEW_DATA -o CLEANED", job_.save, job_.save));
    return {};
  }

 private:
  Status unread(const std::string& path, const Status& status) {
    return status.code() == ErrorCode::kNotFound ? invalid("{}: no such file", path) : status;
  }

  Status at_once() {
    DS_ASSIGN(const Table table, read_table(job_.file, options_));
    DS_ASSIGN(const Table result, fitted_ ? pipeline_.transform(table) : pipeline_.fit_transform(table));
    from_ = {table->num_rows(), table->num_columns()};
    to_ = {result->num_rows(), result->num_columns()};
    return job_.output.empty() ? Status() : write_table(*result, job_.output);
  }

  // The file's batches; text is parsed once, where there is room for it as columns, which may take twice its size.
  OpenStream source() {
    OpenStream file = [this] { return open_table(job_.file, options_); };
    if (fitted_ || !is_text_file(job_.file, options_)) return file;
    const fs::path folder = fs::path(job_.output.empty() ? job_.file : job_.output).parent_path();
    const std::string where = folder.empty() ? "." : folder.string();
    std::error_code error;
    const fs::space_info space = fs::space(where, error);
    return !error && space.available > 2 * bytes_of(job_.file) ? spilled(file, where) : file;
  }

  Status by_batches() {
    int64_t passes = 0, seen = 0;
    const OpenStream open = [&, file = source()]() -> Result<Reader> {
      DS_ASSIGN(auto inner, file());
      from_.columns = inner->schema()->num_fields();
      ++passes;
      seen = 0;
      return watched(std::move(inner), [&](int64_t n) -> Status {
        seen += n;
        from_.rows = std::max(from_.rows, seen);
        return hooks_.progress(seen, from_.rows, fmt::format("pass {}", passes))
                   ? Status()
                   : make_error(ErrorCode::kInterrupted, "interrupted");
      });
    };
    if (!fitted_) DS_TRY(pipeline_.fit(open));
    const auto produce = [&](const WriteTable& write) -> Status {
      const auto count = [&](const Table& table) -> Status {
        to_.rows += table->num_rows();
        to_.columns = table->num_columns();
        return write(table);
      };
      if (!fitted_) return pipeline_.transform_training(open, count);
      DS_ASSIGN(const auto batches, StreamSource::make(open));
      return batches->each([&](const Table& batch, int64_t) -> Status {
        DS_ASSIGN(const Table table, pipeline_.transform(batch));
        return count(table);
      });
    };
    return job_.output.empty() ? produce([](const Table&) { return Status(); })
                               : write_tables(job_.output, {}, produce);
  }

  const CleanJob& job_;
  const FileOptions& options_;
  const JobHooks& hooks_;
  const bool fitted_;
  Pipeline pipeline_;
  Shape from_, to_;
};

Status tell_leaks(const std::vector<Table>& parts, const std::vector<std::string>& names, const JobHooks& hooks) {
  const Result<std::vector<Leak>> found = leaks(parts, {}, parts[0]->num_columns() >= 3);
  if (!found.ok()) hooks.message("not checked for equal rows: " + found.status().message());
  for (const Leak& leak : found.ok() ? *found : std::vector<Leak>()) {
    const std::string& own = names[static_cast<size_t>(leak.part)];
    const std::string& other = names[static_cast<size_t>(leak.other)];
    if (leak.rows > 0)
      hooks.message(fmt::format("warning: {} rows of {} equal rows of {}; leave out duplicates before splitting",
                                leak.rows, own, other));
    if (leak.near > 0)
      hooks.message(
          fmt::format("warning: {} rows of {} differ from a row of {} in one column only; do they belong to one group?",
                      leak.near, own, other));
  }
  return {};
}

Status share_out(const std::string& file, const FileOptions& options, const SplitOptions& how,
                 const std::string& folder, const JobHooks& hooks) {
  DS_ASSIGN(const Table table, read_table(file, options));
  DS_ASSIGN(const auto rows, split(*table, how));
  std::vector<std::string> names = {"train", "validation", "test"};
  if (rows.size() == 2) names = {"train", "test"};
  for (size_t p = names.size(); p < rows.size(); ++p) names.push_back(fmt::format("part{}", p + 1));
  std::string suffix = fs::path(file).extension().string();
  if (suffix != ".csv" && suffix != ".tsv" && suffix != ".arrow" && suffix != ".feather") suffix = ".parquet";
  DS_TRY(check_path(folder));
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return system_error("create folder", folder, error.value());
  std::vector<Table> parts;
  for (size_t p = 0; p < rows.size(); ++p) {
    DS_ASSIGN(Table part, take(table, rows[p]));
    const std::string path = (fs::path(folder) / (names[p] + suffix)).string();
    DS_TRY(write_table(*part, path, {.delimiter = options.delimiter}));
    hooks.message(fmt::format("{}: {} rows, {:.1f} %", path, part->num_rows(),
                              100.0 * static_cast<double>(part->num_rows()) / static_cast<double>(table->num_rows())));
    parts.push_back(std::move(part));
  }
  return tell_leaks(parts, names, hooks);
}

Status describe(const std::string& file, const FileOptions& options, const std::string& target,
                const std::string& output, const JobHooks& hooks) {
  ReportOptions how{.title = fs::path(file).filename().string(), .target = target};
  Table table;
  if (bytes_of(file) > machine_memory() / 8) {
    constexpr int64_t kRows = 200000;
    DS_ASSIGN(const auto source, StreamSource::make([&] { return open_table(file, options); }));
    DS_ASSIGN(how.rows, count_rows(*source));
    DS_ASSIGN(table, sample(*source, kRows));
  } else {
    DS_ASSIGN(table, read_table(file, options));
  }
  DS_ASSIGN(const Report page, report(table, how));
  const std::string path = output.empty() ? fs::path(file).stem().string() + ".html" : output;
  DS_TRY(io::write_file_atomic(path, std::as_bytes(std::span(page.html))));
  for (const std::string& warning : page.warnings) hooks.message("warning: " + warning);
  hooks.message("written: " + path);
  return {};
}

}  // namespace

Status clean_file(const CleanJob& job, const FileOptions& options, const JobHooks& hooks) {
  return guarded(fmt::format("while cleaning '{}'", job.file), [&] { return Cleaning(job, options, hooks).run(); });
}

Status split_file(const std::string& file, const FileOptions& options, const SplitOptions& how,
                  const std::string& folder, const JobHooks& hooks) {
  return guarded(fmt::format("while splitting '{}'", file),
                 [&] { return share_out(file, options, how, folder, hooks); });
}

Status report_on_file(const std::string& file, const FileOptions& options, const std::string& target,
                      const std::string& output, const JobHooks& hooks) {
  return guarded(fmt::format("while describing '{}'", file),
                 [&] { return describe(file, options, target, output, hooks); });
}

Result<std::string> sql_of_file(const std::string& file, const std::string& dialect, const std::string& table) {
  return guarded(fmt::format("while reading '{}'", file), [&]() -> Result<std::string> {
    DS_ASSIGN(const Pipeline pipeline, Pipeline::load(file));
    return pipeline.to_sql(dialect, table);
  });
}

Status parse_types(const std::vector<std::string>& types, FileOptions& options) {
  for (const std::string& type : types) {
    const size_t at = type.find('=');
    if (at == std::string::npos || at == 0) return invalid("--type: expected column=type, got '{}'", type);
    options.types[type.substr(0, at)] = type.substr(at + 1);
  }
  return {};
}

std::string steps_text() {
  std::string text;
  for (const StepInfo& info : steps()) {
    OptionTable table;
    const auto step = info.make();
    step->describe(table);
    text += fmt::format("{}: {}\n{}\n", info.kind, info.doc, table.help());
  }
  return text;
}

}  // namespace deepseek::tables
