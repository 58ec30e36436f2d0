#include "features/job.h"

#include <charconv>
#include <cmath>
#include <filesystem>
#include <map>

#include "base/files.h"
#include "base/guard.h"
#include "features/synthesis.h"

namespace deepseek::features {
namespace {

namespace fs = std::filesystem;
using tables::FileOptions;
using tables::JobHooks;
using tables::Table;

// Tables by the description's file, beside it, or by the job's.
Result<NamedTables> read_tables(const SynthesisConfig& config, const SynthesisJob& job, const FileOptions& how) {
  std::map<std::string, std::string> files;
  const auto folder = fs::path(job.description).parent_path();
  for (const auto& table : config.tables)
    if (!table.file.empty()) files[table.name] = (folder / table.file).string();
  for (const std::string& file : job.files) {
    const size_t at = file.find('=');
    if (at == std::string::npos || at == 0) return invalid("--table: expected table=file, got '{}'", file);
    files[file.substr(0, at)] = file.substr(at + 1);
  }
  NamedTables tables;
  for (const auto& table : config.tables) {
    const auto file = files.find(table.name);
    if (file == files.end()) return invalid("table '{}' has no file; give --table {}=FILE", table.name, table.name);
    FileOptions typed = how;
    // Categories are read as text, so that 01 does not become 1.
    for (const auto& [column, type] : table.options.types)
      if (type == "category" && !typed.types.contains(column)) typed.types[column] = "string";
    DS_ASSIGN(tables[table.name], tables::read_table(file->second, typed));
    files.erase(file);
  }
  if (!files.empty()) return invalid("--table: the description has no table '{}'", files.begin()->first);
  return tables;
}

// --cutoff TIME, or --instances FILE of two columns: the index, and cutoff_time where rows have times of their own.
Result<Instances> read_instances(const SynthesisJob& job, const SynthesisConfig& config) {
  Instances instances;
  if (!job.instances.empty()) {
    DS_ASSIGN(const Table table, tables::read_table(job.instances));
    std::string index;
    for (const auto& t : config.tables)
      if (t.name == config.options.target) index = t.options.index;
    DS_ASSIGN(const int rows, tables::find_column(*table->schema(), index, "--instances, the index of the target"));
    instances.rows = table->column(rows);
    if (const int c = table->schema()->GetFieldIndex("cutoff_time"); c >= 0) instances.cutoffs = table->column(c);
  }
  if (job.cutoff.empty()) return instances;
  if (instances.cutoffs) return invalid("--cutoff: '{}' has cutoff times of its own", job.instances);
  int64_t number = 0;
  const char* const end = job.cutoff.data() + job.cutoff.size();
  const auto [stop, error] = std::from_chars(job.cutoff.data(), end, number);
  const bool integer = error == std::errc() && stop == end;
  const auto type = integer ? arrow::int64() : arrow::timestamp(arrow::TimeUnit::NANO);
  const auto value = arrow::Scalar::Parse(type, job.cutoff);
  if (!value.ok())
    return invalid("--cutoff: expected a time like 2024-01-31 or '2024-01-31 12:00', got '{}'", job.cutoff);
  DS_ARROW_ASSIGN(const auto array, arrow::MakeArrayFromScalar(**value, 1));
  instances.cutoffs = std::make_shared<arrow::ChunkedArray>(array);
  return instances;
}

Status run(const SynthesisJob& job, const FileOptions& how, const JobHooks& hooks) {
  const bool fitted = fs::path(job.description).extension() == ".json";
  Result<Synthesis> synthesis = fitted ? Synthesis::load(job.description) : [&]() -> Result<Synthesis> {
    const Result<std::string> text = read_text(job.description);
    if (!text.ok())
      return text.status().code() == ErrorCode::kNotFound ? invalid("{}: no such file", job.description)
                                                          : text.status();
    DS_ASSIGN(SynthesisConfig config, SynthesisConfig::parse(*text, job.description));
    return Synthesis(std::move(config));
  }();
  DS_TRY(synthesis.status());
  if (fitted && !job.save.empty())
    return invalid("--save: '{}' is fitted already; what is to be fitted comes as YAML", job.description);
  DS_ASSIGN(const NamedTables tables, read_tables(synthesis->config(), job, how));
  DS_ASSIGN(const Instances instances, read_instances(job, synthesis->config()));
  if (!fitted) DS_TRY(synthesis->fit(tables));
  DS_ASSIGN(const Estimate estimate, synthesis->estimate(tables, instances));
  hooks.message(estimate.text());
  if (!job.estimate) {
    DS_ASSIGN(const Table result, synthesis->transform(tables, instances, [&](double done) -> Status {
      return hooks.progress(std::lround(100 * done), 100, "") ? Status()
                                                              : make_error(ErrorCode::kInterrupted, "interrupted");
    }));
    if (!job.output.empty()) {
      DS_TRY(tables::write_table(*result, job.output));
      hooks.message(
          fmt::format("written: {}, {} rows, {} columns", job.output, result->num_rows(), result->num_columns()));
    }
  }
  if (!job.save.empty()) {
    DS_TRY(synthesis->save(job.save));
    hooks.message(
        fmt::format("saved: {}\nNext: deepseek data features {} -o FEATURES.parquet --table ...", job.save, job.save));
  } else if (job.output.empty()) {
    for (const std::string& name : synthesis->features()) hooks.message(name);
  }
  return {};
}

}  // namespace

Status synthesize_files(const SynthesisJob& job, const FileOptions& options, const JobHooks& hooks) {
  return guarded(fmt::format("while making features by '{}'", job.description),
                 [&] { return run(job, options, hooks); });
}

std::string primitives_text() {
  std::string text;
  for (const Primitive& p : primitives()) {
    std::string parameters;
    for (const Parameter& parameter : p.parameters)
      parameters += fmt::format("{}{}={}", parameters.empty() ? "(" : ", ", parameter.name,
                                parameter.choices.empty() ? fmt::format("{}", parameter.value)
                                                          : parameter.choices[static_cast<size_t>(parameter.value)]);
    text += fmt::format("{:11} {}{}: {}\n", p.aggregation ? "aggregation" : "transform", p.name,
                        parameters.empty() ? "" : parameters + ")", p.doc);
  }
  return text;
}

}  // namespace deepseek::features
