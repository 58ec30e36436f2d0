// The command `deepseek data`: tables. A program of its own, which loads Arrow; `deepseek data ...` starts it.
#include <CLI/CLI.hpp>
#include <optional>

#include "base/interrupt.h"
#include "data/sources.h"
#include "features/job.h"
#include "program.h"
#include "tables/jobs.h"

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

// Lines on standard output, and progress until it is over.
class Console {
 public:
  explicit Console(std::string unit) : bar_(progress_bar(std::move(unit))) {}
  JobHooks hooks() {
    return {[this](const std::string& text) {
              bar_.clear();
              print_out("{}\n", text);
            },
            [this](int64_t done, int64_t total, const std::string& what) {
              if (!interrupt_) interrupt_.emplace();  // what can't ask is ended by a signal as ever
              bar_.update(done, 0, total, done, [&] { return what; });
              return !interrupt_->requested();
            }};
  }

 private:
  std::optional<InterruptGuard> interrupt_;
  ProgressBar bar_;
};

int run(int argc, char** argv) {
  CLI::App app{"Tables: clean and split them, make features", "deepseek data"};
  app.require_subcommand(1);
  app.footer("Example: deepseek data split flowers.csv -o parts --stratify species");
  CleanJob cleaning;
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

  features::SynthesisJob synthesis;
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

  std::string set;
  CLI::App* sets_command = app.add_subcommand("sets", "List what a run's data section may name, or the keys of one");
  sets_command->add_option("name", set, "a kind of data: table, image-folder, ...");
  sets_command->footer("Examples: deepseek data sets\n          deepseek data sets table");

  CLI::App* steps_command = app.add_subcommand("steps", "List the steps of pipelines and their options");
  steps_command->footer("Example: deepseek data steps");

  if (const auto code = parse_arguments(app, argc, argv)) return *code;
  Status status = parse_types(types, options);
  if (!status.ok()) return failed(status);
  if (*primitives_command) console_out(features::primitives_text());
  if (*steps_command) console_out(steps_text());
  if (*sets_command) {
    const Result<std::string> text = set.empty() ? data::sources_text() : data::source_text(set);
    status = text.status();
    if (text.ok()) console_out(*text);
  }
  if (*sql_command) {
    const Result<std::string> query = sql_of_file(file, dialect, table_name);
    status = query.status();
    if (query.ok()) console_out(*query);
  }
  if (*clean_command) status = clean_file(cleaning, options, Console("rows").hooks());
  if (*split_command) status = split_file(file, options, how, output, Console("rows").hooks());
  if (*report_command) status = report_on_file(file, options, target, output, Console("rows").hooks());
  if (*features_command) status = features::synthesize_files(synthesis, options, Console("%").hooks());
  return status.ok() ? 0 : failed(status);
}

}  // namespace

int main(int argc, char** argv) {
  return run_main([&] { return run(argc, argv); });
}
