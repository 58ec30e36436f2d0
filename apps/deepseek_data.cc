// The command `deepseek data`: tables. A program of its own, which loads Arrow; `deepseek data ...` starts it.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tables/files.h"
#include "tables/pipeline.h"
#include "tables/split.h"

using namespace deepseek;
using namespace deepseek::tables;

namespace {

int failed(const Status& status) {
  fmt::print(stderr, "error: {}\n", status.to_string());
  return status.code() == ErrorCode::kInvalidArgument ? 2 : 1;
}

// Options of a file that several commands take.
void add_file_options(CLI::App& command, FileOptions& options, std::vector<std::string>& types) {
  command.add_option("--format", options.format, "csv, tsv, jsonl, parquet or arrow; default: by the name");
  command.add_option("--type", types, "a column's type: --type id=string")->take_all()->expected(1);
  command.add_option("--delimiter", options.delimiter, "of CSV")->capture_default_str();
}
Status parse_types(const std::vector<std::string>& types, FileOptions& options) {
  for (const std::string& type : types) {
    const size_t at = type.find('=');
    if (at == std::string::npos || at == 0) return invalid("--type: expected column=type, got '{}'", type);
    options.types[type.substr(0, at)] = type.substr(at + 1);
  }
  return {};
}

Status clean(const std::string& steps, const std::string& file, const FileOptions& options, const std::string& output,
             const std::string& save) {
  const bool fitted = std::filesystem::path(steps).extension() == ".json";
  Result<Pipeline> pipeline = fitted ? Pipeline::load(steps) : [&]() -> Result<Pipeline> {
    std::ifstream stream(steps);
    if (!stream) return invalid("{}: no such file", steps);
    std::stringstream text;
    text << stream.rdbuf();
    return Pipeline::parse(text.str(), steps);
  }();
  DS_TRY(pipeline.status());
  if (fitted && !save.empty()) return invalid("--save: '{}' is fitted already; steps to fit come as YAML", steps);
  DS_ASSIGN(const Table table, read_table(file, options));
  DS_ASSIGN(const Table result, fitted ? pipeline->transform(table) : pipeline->fit_transform(table));
  for (const std::string& note : pipeline->notes()) fmt::print("{}\n", note);
  fmt::print("{}: {} rows, {} columns -> {} rows, {} columns\n", file, table->num_rows(), table->num_columns(),
             result->num_rows(), result->num_columns());
  if (!output.empty()) {
    DS_TRY(write_table(*result, output));
    fmt::print("written: {}\n", output);
  }
  if (!save.empty()) {
    DS_TRY(pipeline->save(save));
    fmt::print("saved: {}\nNext: deepseek data clean {} NEW_DATA -o CLEANED\n", save, save);
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
  const Result<std::vector<Leak>> found = leaks(parts, {});
  if (!found.ok()) fmt::print("not checked for equal rows: {}\n", found.status().message());
  for (const Leak& leak : found.ok() ? *found : std::vector<Leak>())
    fmt::print("warning: {} rows of {} equal rows of {}; leave out duplicates before splitting\n", leak.rows,
               names[static_cast<size_t>(leak.part)], names[static_cast<size_t>(leak.other)]);
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Tables: clean and split them", "deepseek data"};
  app.require_subcommand(1);
  app.footer("Example: deepseek data split flowers.csv -o parts --stratify species");
  std::string steps, file, output, save;
  FileOptions options;
  std::vector<std::string> types;

  CLI::App* clean_command = app.add_subcommand("clean", "Run a pipeline of steps on a table");
  clean_command->add_option("pipeline", steps, "steps as YAML, fitted on this table; or a fitted pipeline, .json")
      ->required();
  clean_command->add_option("table", file, "CSV, TSV, JSON lines, Parquet or Arrow")->required();
  clean_command->add_option("-o,--output", output, "write the result: .csv, .tsv, .parquet or .arrow");
  clean_command->add_option("--save", save, "save the fitted pipeline, for other data: pipeline.json");
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

  CLI::App* steps_command = app.add_subcommand("steps", "List the steps of pipelines and their options");
  steps_command->footer("Example: deepseek data steps");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (Status status = parse_types(types, options); !status.ok()) return failed(status);
  Status status;
  if (*clean_command) status = clean(steps, file, options, output, save);
  if (*split_command) status = share_out(file, options, how, output);
  if (*steps_command)
    for (const StepInfo& info : tables::steps()) {
      OptionTable table;
      const auto step = info.make();
      step->describe(table);
      fmt::print("{}: {}\n{}\n", info.kind, info.doc, table.help());
    }
  return status.ok() ? 0 : failed(status);
}
