// The command `deepseek data`: tables. A program of its own, which loads Arrow; `deepseek data ...` starts it.
#include <fmt/core.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <span>
#include <sstream>

#include "base/interrupt.h"
#include "base/memory.h"
#include "base/progress.h"
#include "failed.h"
#include "features/synthesis.h"
#include "io/atomic_file.h"
#include "tables/files.h"
#include "tables/pipeline.h"
#include "tables/report.h"
#include "tables/spill.h"
#include "tables/split.h"

using namespace deepseek;
using namespace deepseek::tables;

namespace {

// Options of a file that several commands take.
void add_file_options(CLI::App& command, FileOptions& options, std::vector<std::string>& types) {
  command.add_option("--format", options.format, "csv, tsv, jsonl, parquet or arrow; default: by the name");
  command.add_option("--type", types, "a column's type: --type id=string")->take_all()->expected(1);
  command.add_option("--delimiter", options.delimiter, "of CSV")->capture_default_str();
  command.add_option("--encoding", options.encoding, "of text: latin1, cp1252, utf-16, ...")->capture_default_str();
}
Status parse_types(const std::vector<std::string>& types, FileOptions& options) {
  for (const std::string& type : types) {
    const size_t at = type.find('=');
    if (at == std::string::npos || at == 0) return invalid("--type: expected column=type, got '{}'", type);
    options.types[type.substr(0, at)] = type.substr(at + 1);
  }
  return {};
}

// A reader that tells how many rows it gave, and stops where that returns an error.
std::shared_ptr<arrow::RecordBatchReader> watched(std::shared_ptr<arrow::RecordBatchReader> inner,
                                                  std::function<Status(int64_t)> tell) {
  class Watched : public arrow::RecordBatchReader {
   public:
    Watched(std::shared_ptr<arrow::RecordBatchReader> inner, std::function<Status(int64_t)> tell)
        : inner_(std::move(inner)), tell_(std::move(tell)) {}
    std::shared_ptr<arrow::Schema> schema() const override { return inner_->schema(); }
    arrow::Status ReadNext(std::shared_ptr<arrow::RecordBatch>* batch) override {
      ARROW_RETURN_NOT_OK(inner_->ReadNext(batch));
      const Status status = *batch ? tell_((*batch)->num_rows()) : Status();
      return status.ok() ? arrow::Status::OK() : arrow::Status::Cancelled(status.message());
    }

   private:
    std::shared_ptr<arrow::RecordBatchReader> inner_;
    std::function<Status(int64_t)> tell_;
  };
  return std::make_shared<Watched>(std::move(inner), std::move(tell));
}

Result<std::string> text_of(const std::string& path) {
  std::ifstream stream(path);
  if (!stream) return invalid("{}: no such file", path);
  std::stringstream text;
  text << stream.rdbuf();
  return text.str();
}

struct Clean {
  std::string steps, file, output, save;
  bool stream = false;
};

Status clean(const Clean& c, const FileOptions& options) {
  const bool fitted = std::filesystem::path(c.steps).extension() == ".json";
  Result<Pipeline> pipeline = fitted ? Pipeline::load(c.steps) : [&]() -> Result<Pipeline> {
    DS_ASSIGN(const std::string text, text_of(c.steps));
    return Pipeline::parse(text, c.steps);
  }();
  DS_TRY(pipeline.status());
  if (fitted && !c.save.empty()) return invalid("--save: '{}' is fitted already; steps to fit come as YAML", c.steps);
  // A table takes several times the memory of its file while it is cleaned.
  std::error_code error;
  const uintmax_t bytes = std::filesystem::file_size(c.file, error);
  const bool stream = c.stream || (!error && bytes > machine_memory() / 4);
  int64_t rows = 0, columns = 0, rows_left = 0, columns_left = 0;
  const auto report = [&] {
    for (const std::string& note : pipeline->notes()) fmt::print("{}\n", note);
    fmt::print("{}: {} rows, {} columns -> {} rows, {} columns\n", c.file, rows, columns, rows_left, columns_left);
    if (!c.output.empty()) fmt::print("written: {}\n", c.output);
  };
  if (stream) {
    const InterruptGuard interrupt;
    ProgressBar bar("rows", isatty(STDERR_FILENO) != 0, [](const std::string& text) {
      fmt::print(stderr, "{}", text);
      std::fflush(stderr);
    });
    int64_t passes = 0, seen = 0;
    OpenStream file = [&] { return open_table(c.file, options); };
    // Text is parsed once, where there is room for it as columns; those may take twice the text's size.
    const auto folder = std::filesystem::absolute(c.output.empty() ? c.file : c.output).parent_path();
    const auto space = std::filesystem::space(folder, error);
    if (!fitted && is_text_file(c.file, options) && !error && space.available > 2 * bytes)
      file = spilled(file, folder / fmt::format(".deepseek-data-{}.arrow", getpid()));
    const OpenStream open = [&]() -> Result<std::shared_ptr<arrow::RecordBatchReader>> {
      DS_ASSIGN(auto inner, file());
      ++passes;
      seen = 0;
      return watched(std::move(inner), [&](int64_t n) -> Status {
        seen += n;
        rows = std::max(rows, seen);
        bar.update(seen, 0, rows, seen, [&] { return fmt::format("pass {}", passes); });
        return interrupt.requested() ? make_error(ErrorCode::kInterrupted, "interrupted") : Status();
      });
    };
    if (!fitted) DS_TRY(pipeline->fit(open));
    const auto produce = [&](const WriteTable& write) -> Status {
      const auto count = [&](const Table& table) -> Status {
        rows_left += table->num_rows();
        columns_left = table->num_columns();
        return write(table);
      };
      if (!fitted) return pipeline->transform_training(open, count);
      DS_ASSIGN(const auto source, StreamSource::make(open));
      return source->each([&](const Table& batch, int64_t) -> Status {
        DS_ASSIGN(const Table table, pipeline->transform(batch));
        return count(table);
      });
    };
    DS_TRY(c.output.empty() ? produce([](const Table&) { return Status(); }) : write_tables(c.output, {}, produce));
    DS_ASSIGN(const auto reader, open_table(c.file, options));
    columns = reader->schema()->num_fields();
    bar.clear();
    report();
  } else {
    DS_ASSIGN(const Table table, read_table(c.file, options));
    DS_ASSIGN(const Table result, fitted ? pipeline->transform(table) : pipeline->fit_transform(table));
    rows = table->num_rows(), columns = table->num_columns();
    rows_left = result->num_rows(), columns_left = result->num_columns();
    if (!c.output.empty()) DS_TRY(write_table(*result, c.output));
    report();
  }
  if (!c.save.empty()) {
    DS_TRY(pipeline->save(c.save));
    fmt::print("saved: {}\nNext: deepseek data clean {} NEW_DATA -o CLEANED\n", c.save, c.save);
  }
  return {};
}

Status print_sql(const std::string& file, const std::string& dialect, const std::string& table) {
  DS_ASSIGN(const Pipeline pipeline, Pipeline::load(file));
  DS_ASSIGN(const std::string query, pipeline.to_sql(dialect, table));
  fmt::print("{}", query);
  return {};
}

Status write_report(const std::string& file, const FileOptions& options, const std::string& target,
                    const std::string& output) {
  std::error_code error;
  const uintmax_t bytes = std::filesystem::file_size(file, error);
  ReportOptions how{.title = std::filesystem::path(file).filename(), .target = target};
  Table table;
  if (!error && bytes > machine_memory() / 8) {
    constexpr int64_t kRows = 200000;
    DS_ASSIGN(const auto source, StreamSource::make([&] { return open_table(file, options); }));
    DS_ASSIGN(how.rows, count_rows(*source));
    DS_ASSIGN(table, sample(*source, kRows));
  } else {
    DS_ASSIGN(table, read_table(file, options));
  }
  DS_ASSIGN(const Report page, report(table, how));
  const std::string path = output.empty() ? std::filesystem::path(file).stem().string() + ".html" : output;
  DS_TRY(io::write_file_atomic(path, std::as_bytes(std::span(page.html))));
  for (const std::string& warning : page.warnings) fmt::print("warning: {}\n", warning);
  fmt::print("written: {}\n", path);
  return {};
}

// What a synthesis takes on the command line beside its description.
struct Synthesize {
  std::string description, output, save, cutoff, instances;
  std::vector<std::string> files;  // table=file
  bool estimate = false;
};

// Tables by the description's file, beside it, or by the command line's.
Result<features::NamedTables> read_tables(const features::SynthesisConfig& config, const Synthesize& options,
                                          const FileOptions& how) {
  std::map<std::string, std::string> files;
  const auto folder = std::filesystem::path(options.description).parent_path();
  for (const auto& table : config.tables)
    if (!table.file.empty()) files[table.name] = folder / table.file;
  for (const std::string& file : options.files) {
    const size_t at = file.find('=');
    if (at == std::string::npos || at == 0) return invalid("--table: expected table=file, got '{}'", file);
    files[file.substr(0, at)] = file.substr(at + 1);
  }
  features::NamedTables tables;
  for (const auto& table : config.tables) {
    const auto file = files.find(table.name);
    if (file == files.end()) return invalid("table '{}' has no file; give --table {}=FILE", table.name, table.name);
    FileOptions typed = how;
    // Categories are read as text, so that 01 does not become 1.
    for (const auto& [column, type] : table.options.types)
      if (type == "category" && !typed.types.contains(column)) typed.types[column] = "string";
    DS_ASSIGN(tables[table.name], read_table(file->second, typed));
    files.erase(file);
  }
  if (!files.empty()) return invalid("--table: the description has no table '{}'", files.begin()->first);
  return tables;
}

// --cutoff TIME, or --instances FILE of two columns: the index, and cutoff_time where rows have times of their own.
Result<features::Instances> read_instances(const Synthesize& options, const features::SynthesisConfig& config) {
  features::Instances instances;
  if (!options.instances.empty()) {
    DS_ASSIGN(const Table table, read_table(options.instances));
    std::string index;
    for (const auto& t : config.tables)
      if (t.name == config.options.target) index = t.options.index;
    DS_ASSIGN(const int rows, find_column(*table->schema(), index, "--instances, the index of the target"));
    instances.rows = table->column(rows);
    if (const int c = table->schema()->GetFieldIndex("cutoff_time"); c >= 0) instances.cutoffs = table->column(c);
  }
  if (!options.cutoff.empty()) {
    if (instances.cutoffs) return invalid("--cutoff: '{}' has cutoff times of its own", options.instances);
    int64_t number = 0;
    const bool integer = CLI::detail::lexical_cast(options.cutoff, number);
    const auto type = integer ? arrow::int64() : arrow::timestamp(arrow::TimeUnit::NANO);
    const auto value = arrow::Scalar::Parse(type, options.cutoff);
    if (!value.ok())
      return invalid("--cutoff: expected a time like 2024-01-31 or '2024-01-31 12:00', got '{}'", options.cutoff);
    DS_ARROW_ASSIGN(const auto array, arrow::MakeArrayFromScalar(**value, 1));
    instances.cutoffs = std::make_shared<arrow::ChunkedArray>(array);
  }
  return instances;
}

Status synthesize(const Synthesize& options, const FileOptions& how) {
  const bool fitted = std::filesystem::path(options.description).extension() == ".json";
  Result<features::Synthesis> synthesis =
      fitted ? features::Synthesis::load(options.description) : [&]() -> Result<features::Synthesis> {
    DS_ASSIGN(const std::string text, text_of(options.description));
    DS_ASSIGN(features::SynthesisConfig config, features::SynthesisConfig::parse(text, options.description));
    return features::Synthesis(std::move(config));
  }();
  DS_TRY(synthesis.status());
  if (fitted && !options.save.empty())
    return invalid("--save: '{}' is fitted already; what is to be fitted comes as YAML", options.description);
  DS_ASSIGN(const features::NamedTables tables, read_tables(synthesis->config(), options, how));
  DS_ASSIGN(const features::Instances instances, read_instances(options, synthesis->config()));
  if (!fitted) DS_TRY(synthesis->fit(tables));
  DS_ASSIGN(const features::Estimate estimate, synthesis->estimate(tables, instances));
  fmt::print("{}\n", estimate.text());
  std::fflush(stdout);
  if (!options.estimate) {
    const InterruptGuard interrupt;
    ProgressBar bar("%", isatty(STDERR_FILENO) != 0, [](const std::string& text) {
      fmt::print(stderr, "{}", text);
      std::fflush(stderr);
    });
    DS_ASSIGN(const Table result, synthesis->transform(tables, instances, [&](double done) -> Status {
      if (interrupt.requested()) return make_error(ErrorCode::kInterrupted, "interrupted");
      bar.update(std::lround(100 * done), 0, 100, std::lround(100 * done), [] { return std::string(); });
      return {};
    }));
    bar.clear();
    if (!options.output.empty()) {
      DS_TRY(write_table(*result, options.output));
      fmt::print("written: {}, {} rows, {} columns\n", options.output, result->num_rows(), result->num_columns());
    }
  }
  if (!options.save.empty()) {
    DS_TRY(synthesis->save(options.save));
    fmt::print("saved: {}\nNext: deepseek data features {} -o FEATURES.parquet --table ...\n", options.save,
               options.save);
  } else if (options.output.empty()) {
    for (const std::string& name : synthesis->features()) fmt::print("{}\n", name);
  }
  return {};
}

Status share_out(const std::string& file, const FileOptions& options, const SplitOptions& how,
                 const std::string& folder) {
  DS_ASSIGN(const Table table, read_table(file, options));
  DS_ASSIGN(const auto rows, split(*table, how));
  std::vector<std::string> names = {"train", "validation", "test"};
  if (rows.size() == 2) names = {"train", "test"};
  for (size_t p = names.size(); p < rows.size(); ++p) names.push_back(fmt::format("part{}", p + 1));
  std::filesystem::path suffix = std::filesystem::path(file).extension();
  if (suffix != ".csv" && suffix != ".tsv" && suffix != ".arrow" && suffix != ".feather") suffix = ".parquet";
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return make_error(ErrorCode::kIo, "cannot create '{}': {}", folder, error.message());
  std::vector<Table> parts;
  for (size_t p = 0; p < rows.size(); ++p) {
    DS_ASSIGN(Table part, take(table, rows[p]));
    const std::string path = std::filesystem::path(folder) / (names[p] + suffix.string());
    DS_TRY(write_table(*part, path, {.delimiter = options.delimiter}));
    fmt::print("{}: {} rows, {:.1f} %\n", path, part->num_rows(),
               100.0 * static_cast<double>(part->num_rows()) / static_cast<double>(table->num_rows()));
    parts.push_back(std::move(part));
  }
  const Result<std::vector<Leak>> found = leaks(parts, {}, parts[0]->num_columns() >= 3);
  if (!found.ok()) fmt::print("not checked for equal rows: {}\n", found.status().message());
  for (const Leak& leak : found.ok() ? *found : std::vector<Leak>()) {
    const std::string& own = names[static_cast<size_t>(leak.part)];
    const std::string& other = names[static_cast<size_t>(leak.other)];
    if (leak.rows > 0)
      fmt::print("warning: {} rows of {} equal rows of {}; leave out duplicates before splitting\n", leak.rows, own,
                 other);
    if (leak.near > 0)
      fmt::print("warning: {} rows of {} differ from a row of {} in one column only; do they belong to one group?\n",
                 leak.near, own, other);
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Tables: clean and split them, make features", "deepseek data"};
  app.require_subcommand(1);
  app.footer("Example: deepseek data split flowers.csv -o parts --stratify species");
  Clean cleaning;
  std::string file, output;
  FileOptions options;
  std::vector<std::string> types;

  CLI::App* clean_command = app.add_subcommand("clean", "Run a pipeline of steps on a table");
  clean_command
      ->add_option("pipeline", cleaning.steps, "steps as YAML, fitted on this table; or a fitted pipeline, .json")
      ->required();
  clean_command->add_option("table", cleaning.file, "CSV, TSV, JSON lines, Parquet or Arrow")->required();
  clean_command->add_option("-o,--output", cleaning.output, "write the result: .csv, .tsv, .parquet or .arrow");
  clean_command->add_option("--save", cleaning.save, "save the fitted pipeline, for other data: pipeline.json");
  clean_command->add_flag(
      "--stream", cleaning.stream,
      "batch by batch, for tables larger than memory; larger ones than a quarter of it are in any case");
  add_file_options(*clean_command, options, types);
  clean_command->footer(
      "steps.yaml:\n  steps:\n    - duplicates\n    - impute: {strategy: median}\n    - outliers: {method: sigma}\n"
      "Example: deepseek data clean steps.yaml train.csv -o train.parquet --save pipeline.json");

  SplitOptions how;
  CLI::App* split_command = app.add_subcommand("split", "Share rows out for training, validation and test");
  split_command->add_option("table", file, "CSV, TSV, JSON lines, Parquet or Arrow")->required();
  split_command->add_option("-o,--output", output, "folder for train, validation and test")->required();
  split_command->add_option("--fractions", how.fractions, "of the rows")->delimiter(',')->capture_default_str();
  split_command->add_option("--stratify", how.stratify, "a column of which each value is shared out like this");
  split_command->add_option("--group", how.group, "a column whose equal values stay together");
  split_command->add_option("--time", how.time, "a column by which the earliest rows come first, unshuffled");
  split_command->add_option("--seed", how.seed, "of the order")->capture_default_str();
  add_file_options(*split_command, options, types);
  split_command->footer("Example: deepseek data split flowers.csv -o parts --stratify species");

  std::string target;
  CLI::App* report_command = app.add_subcommand("report", "Write a page on what is in a table");
  report_command
      ->add_option("table", file, "CSV, TSV, JSON lines, Parquet or Arrow; of one larger than memory a sample is shown")
      ->required();
  report_command->add_option("-o,--output", output, "the page; default: the table's name with .html");
  report_command->add_option("--target", target, "the column to be predicted: what does each other one tell of it?");
  add_file_options(*report_command, options, types);
  report_command->footer("Example: deepseek data report houses.csv --target price -o houses.html");

  Synthesize synthesis;
  CLI::App* features_command =
      app.add_subcommand("features", "Make features of related tables (deep feature synthesis)");
  features_command
      ->add_option("description", synthesis.description,
                   "tables, relationships and primitives as YAML; or a fitted synthesis, .json")
      ->required();
  features_command->add_option("-o,--output", synthesis.output,
                               "write the features: .csv, .tsv, .parquet or .arrow; without it their names are listed");
  features_command->add_option("--save", synthesis.save, "save the fitted synthesis, for other data: features.json");
  features_command->add_option("--table", synthesis.files, "a table's file: --table sessions=sessions.parquet")
      ->take_all()
      ->expected(1);
  features_command->add_option("--cutoff", synthesis.cutoff, "a time: nothing later is seen");
  features_command->add_option("--instances", synthesis.instances,
                               "a table of the rows wanted: the index, and cutoff_time where each has its own");
  features_command->add_flag("--estimate", synthesis.estimate, "tell what it takes, and stop");
  features_command->add_option("--delimiter", options.delimiter, "of CSV")->capture_default_str();
  features_command->footer(
      "features.yaml:\n  tables:\n    customers: {file: customers.csv, index: customer_id}\n"
      "    orders: {file: orders.csv, index: order_id, time_index: ordered_at}\n"
      "  relationships: [orders.customer_id -> customers]\n  target: customers\n  aggregations: [count, mean, max, "
      "time_since_last]\n"
      "Example: deepseek data features features.yaml --cutoff 2024-01-31 -o train.parquet --save features.json");
  CLI::App* primitives_command = app.add_subcommand("primitives", "List what features are made with");
  primitives_command->footer("Example: deepseek data primitives");

  std::string dialect = "duckdb", table_name = "data";
  CLI::App* sql_command = app.add_subcommand("sql", "Print a fitted pipeline as a query, for DuckDB or Spark");
  sql_command->add_option("pipeline", file, "a fitted pipeline, .json")->required();
  sql_command->add_option("--dialect", dialect, "duckdb or spark")->capture_default_str();
  sql_command->add_option("--table", table_name, "the table that it is run on")->capture_default_str();
  sql_command->footer("Example: deepseek data sql pipeline.json --dialect spark --table warehouse.orders");

  CLI::App* steps_command = app.add_subcommand("steps", "List the steps of pipelines and their options");
  steps_command->footer("Example: deepseek data steps");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (Status status = parse_types(types, options); !status.ok()) return failed(status);
  Status status;
  if (*clean_command) status = clean(cleaning, options);
  if (*split_command) status = share_out(file, options, how, output);
  if (*sql_command) status = print_sql(file, dialect, table_name);
  if (*report_command) status = write_report(file, options, target, output);
  if (*features_command) status = synthesize(synthesis, options);
  if (*primitives_command)
    for (const features::Primitive& p : features::primitives()) {
      std::string parameters;
      for (const features::Parameter& parameter : p.parameters)
        parameters += fmt::format("{}{}={}", parameters.empty() ? "(" : ", ", parameter.name,
                                  parameter.choices.empty() ? fmt::format("{}", parameter.value)
                                                            : parameter.choices[static_cast<size_t>(parameter.value)]);
      fmt::print("{:11} {}{}: {}\n", p.aggregation ? "aggregation" : "transform", p.name,
                 parameters.empty() ? "" : parameters + ")", p.doc);
    }
  if (*steps_command)
    for (const StepInfo& info : tables::steps()) {
      OptionTable table;
      const auto step = info.make();
      step->describe(table);
      fmt::print("{}: {}\n{}\n", info.kind, info.doc, table.help());
    }
  return status.ok() ? 0 : failed(status);
}
