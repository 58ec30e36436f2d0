#include "tables/table_source.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/console.h"
#include "base/files.h"
#include "base/json.h"
#include "base/strings.h"
#include "tables/columns.h"
#include "tables/edit.h"
#include "tables/part_writer.h"
#include "tables/split.h"
#include "tables/table_spec.h"

namespace deepseek::tables {
namespace {

using data::Params;
using Json = nlohmann::ordered_json;
using Rows = std::vector<int64_t>;

// Leaves finite numbers of columns of numbers, booleans, text and dates.
constexpr const char* kPipeline = "dates, constant, impute, scale, one_hot";

// A list: JSON, or values with commas between them.
Result<std::vector<std::string>> names(const Params& params, const std::string& key) {
  const std::string text(trim(data::text(params, key, "")));
  if (!text.starts_with('[')) return data::list(params, key);
  const Json json = parse_json<Json>(text, false);
  std::vector<std::string> list;
  for (const Json& item : json) {
    if (!item.is_string()) return invalid("[data] {}: expected a list of names, got {}", key, text);
    list.push_back(item.get<std::string>());
  }
  if (!json.is_array()) return invalid("[data] {}: expected a list of names, got {}", key, text);
  return list;
}

Result<bool> flag(const Params& params, const std::string& key, bool otherwise) {
  const std::string text = lower(trim(data::text(params, key, otherwise ? "true" : "false")));
  if (text == "true" || text == "yes" || text == "on" || text == "1") return true;
  if (text == "false" || text == "no" || text == "off" || text == "0") return false;
  return invalid("[data] parameter '{}' is '{}', expected true or false", key, text);
}

Result<double> fraction(const Params& params, const std::string& key, double otherwise) {
  DS_ASSIGN(const double value, data::number<double>(params, key, otherwise));
  if (!(value >= 0 && value < 1)) return invalid("[data] {} is {}, expected a value in [0, 1)", key, value);
  return value;
}

Result<FileOptions> file_options(const Params& params) {
  FileOptions o;
  o.format = data::text(params, "format", "");
  o.delimiter = data::text(params, "delimiter", o.delimiter);
  if (o.delimiter == "\\t") o.delimiter = "\t";
  o.encoding = data::text(params, "encoding", o.encoding);
  DS_ASSIGN(o.header, flag(params, "header", true));
  if (params.contains("null_values")) {
    DS_ASSIGN(o.null_values, names(params, "null_values"));
  }
  const std::string types = data::text(params, "types", "{}");
  const Json json = parse_json<Json>(types, false);
  const auto all_text = [&] {
    return std::all_of(json.begin(), json.end(), [](const Json& v) { return v.is_string(); });
  };
  if (!json.is_object() || !all_text())
    return invalid("[data] types: expected a type for each column, {{\"id\": \"string\"}}, got {}", types);
  for (const auto& [name, type] : json.items()) o.types[name] = type.get<std::string>();
  return o;
}

// Steps as a list of names, as JSON, or in a file. Errors name the mistake, with the nearest step.
Result<Pipeline> pipeline_of(const Params& params, const std::vector<std::string>& targets) {
  const std::string given(trim(data::text(params, "pipeline", kPipeline)));
  const std::string where = "[data] pipeline";
  Pipeline pipeline;
  const std::string suffix = std::filesystem::path(given).extension().string();
  if (given.starts_with('[') || given.starts_with('{')) {
    const Json json = parse_json<Json>(given, false);
    if (json.is_discarded()) return invalid("{}: expected JSON, got {}", where, given);
    if (json.is_object() && json.contains("format")) {
      DS_ASSIGN(pipeline, Pipeline::from_json(parse_json<nlohmann::json>(given), where));
    } else {
      DS_ASSIGN(pipeline, Pipeline::parse(dump_json(json.is_array() ? Json{{"steps", json}} : json), where));
    }
  } else if (suffix == ".json") {
    DS_ASSIGN(pipeline, Pipeline::load(given));
  } else if (suffix == ".yaml" || suffix == ".yml") {
    DS_ASSIGN(const std::string yaml, read_text(given));
    DS_ASSIGN(pipeline, Pipeline::parse(yaml, given));
  } else {
    Json steps = Json::array();
    for (const std::string& step : deepseek::split(given, ',')) steps.push_back(trim(step));
    DS_ASSIGN(pipeline, Pipeline::parse(dump_json(Json{{"steps", steps}}), where));
  }
  if (pipeline.fitted()) {
    for (const Pipeline::Input& input : pipeline.inputs())
      if (std::find(targets.begin(), targets.end(), input.name) != targets.end())
        return invalid("{}: it was fitted with '{}' as an input, which is to be predicted; fit it with target: {}",
                       where, input.name, input.name);
    return pipeline;
  }
  if (!pipeline.targets().empty() && pipeline.targets() != targets)
    return invalid("{}: its target is {}, the data's is {}; name one alone", where, join(pipeline.targets(), ", "),
                   join(targets, ", "));
  pipeline.set_targets(targets);
  return pipeline;
}

// A table in memory, and which rows of its file these are.
struct Rowset {
  std::string path;
  Table table;
  Rows rows;

  NameRow name_row() const {
    return [this](int64_t row) { return fmt::format("row {} of '{}'", rows[static_cast<size_t>(row)], path); };
  }
  Result<Rowset> subset(const Rows& which) const {
    Rowset part{path, nullptr, {}};
    DS_ASSIGN(part.table, take(table, which));
    for (const int64_t row : which) part.rows.push_back(rows[static_cast<size_t>(row)]);
    return part;
  }
};

Result<Rowset> read_rows(const std::string& path, const FileOptions& options) {
  Rowset all{path, nullptr, {}};
  DS_ASSIGN(all.table, read_table(path, options));
  if (all.table->num_rows() == 0) return make_error(ErrorCode::kDataCorrupt, "[data] '{}' has no rows", path);
  DS_ASSIGN(all.table, plain(all.table));
  all.rows = data::all_rows(all.table->num_rows());
  return all;
}

class Opening {
 public:
  explicit Opening(const Params& params) : params_(params) {}

  Result<data::Splits> run() {
    DS_ASSIGN(spec_.options, file_options(params_));
    DS_ASSIGN(targets_, names(params_, "target"));
    if (targets_.empty()) return invalid("[data] target is empty, expected the name of a column to be predicted");
    DS_ASSIGN(spec_.pipeline, pipeline_of(params_, targets_));
    DS_ASSIGN(Rowset all, read_rows(params_.at("file"), spec_.options));
    DS_TRY(choose_columns(all));
    DS_TRY(leave_out_without_target(all));
    DS_TRY(describe_targets(all));
    Rowset train, validation, test;
    DS_TRY(share_out(all, train, validation, test));
    all.table = nullptr;
    data::Splits out;
    DS_ASSIGN(out.train, fit(train));
    if (validation.table) {
      DS_ASSIGN(out.validation, made_of(validation, "validation"));
    }
    if (params_.contains("test")) {
      DS_ASSIGN(test, read_test());
    }
    if (test.table) {
      DS_ASSIGN(out.test, made_of(test, "test"));
    }
    return out;
  }

 private:
  Result<int> find(const Rowset& all, const std::string& name, const std::string& key) const {
    return find_column(*all.table->schema(), name, fmt::format("[data] '{}': {}", all.path, key));
  }

  Status choose_columns(const Rowset& all) {
    for (size_t t = 0; t < targets_.size(); ++t) {
      DS_TRY(find(all, targets_[t], "target").status());
      if (std::find(targets_.begin(), targets_.begin() + static_cast<std::ptrdiff_t>(t), targets_[t]) !=
          targets_.begin() + static_cast<std::ptrdiff_t>(t))
        return invalid("[data] target: '{}' is there twice", targets_[t]);
    }
    DS_ASSIGN(const std::vector<std::string> only, names(params_, "columns"));
    DS_ASSIGN(std::vector<std::string> ignored, names(params_, "ignore"));
    for (const std::string& name : only) {
      DS_TRY(find(all, name, "columns").status());
      if (is_target(name)) return invalid("[data] columns: '{}' is a target, not an input", name);
    }
    for (const std::string& name : ignored) {
      DS_TRY(find(all, name, "ignore").status());
      if (is_target(name)) return invalid("[data] ignore: '{}' is the target; name another target", name);
    }
    const std::string group = data::text(params_, "group", "");
    if (!group.empty() && only.empty()) ignored.push_back(group);  // tells nothing of other groups
    const auto in = [](const std::vector<std::string>& list, const std::string& name) {
      return std::find(list.begin(), list.end(), name) != list.end();
    };
    for (const auto& field : all.table->schema()->fields()) {
      const std::string& name = field->name();
      // A column without any value has no type that new data could have.
      if (is_target(name) || in(ignored, name) || field->type()->id() == arrow::Type::NA) continue;
      if (only.empty() || in(only, name)) inputs_.push_back(name);
    }
    if (inputs_.empty())
      return invalid("[data] '{}': no column is left as input; it has {}", all.path,
                     join(all.table->schema()->field_names(), ", "));
    return {};
  }

  bool is_target(const std::string& name) const {
    return std::find(targets_.begin(), targets_.end(), name) != targets_.end();
  }

  Status leave_out_without_target(Rowset& all) const {
    DS_ASSIGN(const bool allowed, flag(params_, "drop_missing_target", true));
    std::vector<uint8_t> out(all.rows.size());
    for (const std::string& name : targets_) {
      DS_ASSIGN(const int c, find(all, name, "target"));
      const std::vector<uint8_t> none = missing(*all.table->column(c));
      for (size_t i = 0; i < out.size(); ++i) out[i] |= none[i];
    }
    Rows kept;
    for (size_t i = 0; i < out.size(); ++i)
      if (!out[i]) kept.push_back(static_cast<int64_t>(i));
    const size_t lost = out.size() - kept.size();
    if (lost == 0) return {};
    const std::string what = fmt::format("'{}': {} of {} rows have no value of '{}'", all.path, lost, out.size(),
                                         join(targets_, "', or none of '"));
    if (!allowed || kept.empty())
      return make_error(ErrorCode::kDataCorrupt, "[data] {}, the first is row {}{}", what,
                        std::find(out.begin(), out.end(), 1) - out.begin(),
                        kept.empty() ? "" : "; drop_missing_target: true leaves them out");
    print_err("[data] {}, and are left out\n", what);
    DS_ASSIGN(all, all.subset(kept));
    return {};
  }

  Status describe_targets(const Rowset& all) {
    std::vector<std::string> tasks = data::list(params_, "task");
    if (tasks.empty()) tasks = {"auto"};
    for (const std::string& task : tasks)
      if (task != "auto" && task != "classification" && task != "regression")
        return invalid("[data] task is '{}', expected auto, classification or regression", task);
    if (tasks.size() != 1 && tasks.size() != targets_.size())
      return invalid("[data] task: expected one, or one for each of the {} targets, got {}", targets_.size(),
                     tasks.size());
    tasks.resize(targets_.size(), tasks[0]);
    for (size_t t = 0; t < targets_.size(); ++t) {
      DS_ASSIGN(const int c, find(all, targets_[t], "target"));
      const Column& column = all.table->column(c);
      Target target{targets_[t], targets_.size() == 1 ? "y" : targets_[t], column->type()->ToString(), false, {}};
      for (char& ch : target.field)
        if (ch == '/' || ch == '<' || ch == '>') ch = '_';
      const auto same = [&](const Target& other) { return other.field == target.field; };
      if (target.field == "x" || std::any_of(spec_.targets.begin(), spec_.targets.end(), same))
        return invalid("[data] target '{}' would be named '{}', which is taken; rename the column", target.column,
                       target.field);
      DS_ASSIGN(target.classes, is_classification(target.column, column, tasks[t]));
      spec_.targets.push_back(std::move(target));
    }
    return {};
  }

  // Training, validation and test rows; without table where there is no such part.
  Status share_out(const Rowset& all, Rowset& train, Rowset& validation, Rowset& test) const {
    if (params_.contains("test") && params_.contains("test_fraction"))
      return invalid("[data] test names the file of the test part, so there is no test_fraction; give one of them");
    DS_ASSIGN(const double for_test, fraction(params_, "test_fraction", params_.contains("test") ? 0 : 0.2));
    DS_ASSIGN(const double held_out, fraction(params_, "validation_fraction", 0.1));
    SplitOptions how;
    DS_ASSIGN(how.seed, data::number<uint64_t>(params_, "seed", 0));
    how.group = data::text(params_, "group", "");
    how.time = data::text(params_, "time", "");
    how.stratify = data::text(params_, "stratify", "auto");
    if (how.stratify == "auto") {
      const bool can = how.group.empty() && how.time.empty() && spec_.targets.size() == 1 && spec_.targets[0].classes;
      how.stratify = can ? spec_.targets[0].column : "";
    } else if (how.stratify == "false" || how.stratify == "none") {
      how.stratify = "";
    }
    const double for_validation = (1 - for_test) * held_out;
    // Too few rows for a validation part: there is none.
    const bool validates = for_validation * static_cast<double>(all.rows.size()) >= 1;
    std::vector<Rowset*> parts = {&train};
    how.fractions = {1 - for_test - (validates ? for_validation : 0)};
    const auto add = [&](Rowset& part, double share) {
      parts.push_back(&part);
      how.fractions.push_back(share);
    };
    if (validates) add(validation, for_validation);
    if (for_test > 0) add(test, for_test);
    if (parts.size() == 1) {
      train = all;
      return {};
    }
    auto rows = split(*all.table, how);
    if (!rows.ok())
      return std::move(rows).status().note(fmt::format("while '{}' is split into training{}{} parts", all.path,
                                                       validates ? ", validation" : "", for_test > 0 ? ", test" : ""));
    for (size_t p = 0; p < parts.size(); ++p) {
      DS_ASSIGN(*parts[p], all.subset((*rows)[p]));
    }
    return {};
  }

  // The inputs as reals, and the targets, as the pipeline learns from them.
  Result<Table> for_pipeline(const Rowset& part, bool with_targets) const {
    std::vector<int> numbers;
    for (const std::string& name : inputs_) {
      DS_ASSIGN(const int c, find(part, name, "columns"));
      numbers.push_back(c);
    }
    DS_ARROW_ASSIGN(Table table, part.table->SelectColumns(numbers));
    DS_ASSIGN(table, as_reals(table));
    for (const std::string& name : targets_) {
      if (!with_targets) break;
      DS_ASSIGN(const int c, find(part, name, "target"));
      DS_ASSIGN(table, add_column(table, name, part.table->column(c), "target"));
    }
    return table;
  }

  // What the pipeline makes of the training part, which it learns from unless it is fitted already.
  Result<data::DatasetPtr> fit(const Rowset& train) {
    train_ = train.path;
    Table made, labelled = train.table;
    const auto note = [&](Status s) { return std::move(s).note(fmt::format("in the pipeline of '{}'", train.path)); };
    if (spec_.pipeline.fitted()) {
      spec_.columns = spec_.pipeline.inputs();
      DS_TRY(check_columns(*train.table, spec_.columns, train.path));
      DS_ASSIGN(const Table given, for_pipeline(train, false));
      Result<Table> result = spec_.pipeline.transform(given);
      if (!result.ok()) return note(std::move(result).status());
      made = *result;
    } else {
      DS_ASSIGN(const Table given, for_pipeline(train, true));
      Result<Table> result = spec_.pipeline.fit_transform(given);
      if (!result.ok()) return note(std::move(result).status());
      made = labelled = *result;  // some steps leave out rows
      spec_.columns = spec_.pipeline.inputs();
      DS_TRY(check_free_of_targets(given));
    }
    for (const std::string& name : targets_)
      if (const int c = made->schema()->GetFieldIndex(name); c >= 0) {
        DS_ARROW_ASSIGN(made, made->RemoveColumn(c));
      }
    spec_.features = made->schema()->field_names();
    if (spec_.features.empty())
      return invalid("[data] '{}': the pipeline leaves no column as input; choose other steps", train.path);
    for (Target& t : spec_.targets) {
      DS_ASSIGN(const int c, find_column(*labelled->schema(), t.column, "[data] target"));
      if (t.classes) {
        DS_ASSIGN(t.class_names, labels_of(t.column, labelled->column(c)));
      }
    }
    const bool all_rows = made->num_rows() == train.table->num_rows();
    const NameRow name_row = all_rows ? train.name_row() : [&](int64_t row) {
      return fmt::format("row {} of those of '{}' that the pipeline leaves for training", row, train.path);
    };
    DS_ASSIGN(graph::Tensor x, to_matrix(*made, name_row));
    DS_ASSIGN(spec_text_, spec_.to_text());
    return dataset(std::move(x), *labelled, name_row);
  }

  // New data have no targets, so what the pipeline does must neither need nor change them.
  Status check_free_of_targets(const Table& given) const {
    DS_ARROW_ASSIGN(Table none, arrow::Table::MakeEmpty(given->schema()));
    for (const std::string& name : targets_) {
      DS_ARROW_ASSIGN(none, none->RemoveColumn(none->schema()->GetFieldIndex(name)));
    }
    const Result<Table> made = spec_.pipeline.transform(none);
    if (made.ok()) return {};
    return invalid(
        "[data] pipeline: it changes the target, which new data do not have: {}; leave '{}' out of the "
        "steps' columns",
        made.status().message(), join(targets_, "', '"));
  }

  Result<data::DatasetPtr> made_of(const Rowset& part, const std::string& name) const {
    DS_ASSIGN(graph::Tensor x, inputs_of(spec_, part.table, part.path, part.name_row()));
    auto made = dataset(std::move(x), *part.table, part.name_row());
    if (made.ok()) return made;
    return std::move(made).status().note(fmt::format(
        "in the {} part{}", name,
        part.path == train_ ? "; share labels out by stratify, or leave out rows of labels that are rare" : ""));
  }

  Result<data::DatasetPtr> dataset(graph::Tensor x, const arrow::Table& labelled, const NameRow& name_row) const {
    std::vector<data::Field> fields(1);
    fields[0].name = "x";
    data::Batch tensors = {{"x", std::move(x)}};
    for (const Target& t : spec_.targets) {
      DS_ASSIGN(const int c, find_column(*labelled.schema(), t.column, "[data] target"));
      DS_ASSIGN(tensors[t.field], target_values(t, labelled.column(c), name_row));
      fields.push_back(t.describe());
    }
    return data::ArrayDataset::create(std::move(fields), std::move(tensors), spec_text_);
  }

  Result<Rowset> read_test() const {
    const std::string path = params_.at("test");
    DS_ASSIGN(Rowset test, read_rows(path, options_like(spec_.options, path, spec_.columns, spec_.targets)));
    for (const std::string& name : targets_) DS_TRY(find(test, name, "target").status());
    DS_TRY(leave_out_without_target(test));
    return test;
  }

  const Params& params_;
  std::vector<std::string> targets_, inputs_;
  TableSpec spec_;
  std::string spec_text_, train_;
};

Result<data::Splits> open(const Params& params) { return Opening(params).run(); }

// A target of new data, if each row has one that training data could have had.
Result<graph::Tensor> target_of(const Target& target, const Column& given, const NameRow& name_row) {
  Column column = given;
  if (column->type()->ToString() != target.type) {
    const auto type = type_of_name(target.type);
    if (type.ok()) {
      Result<Column> same = cast_column(column, *type);
      if (same.ok()) column = *same;
    }
  }
  if (!target.classes && holds_text(*column->type()))
    return invalid("[data] target '{}' is text, in training data it was {}", target.column, target.type);
  return target_values(target, column, name_row);
}

Result<data::Input> open_input(const std::string& text, const std::string& path) {
  DS_ASSIGN(const TableSpec spec, TableSpec::from_text(text));
  DS_ASSIGN(const Rowset all, read_rows(path, options_like(spec.options, path, spec.columns, spec.targets)));
  std::vector<data::Field> fields(1);
  fields[0].name = "x";
  data::Batch tensors;
  DS_ASSIGN(tensors["x"], inputs_of(spec, all.table, path, all.name_row()));
  for (const Target& t : spec.targets) {
    const int c = all.table->schema()->GetFieldIndex(t.column);
    if (c < 0 || all.table->column(c)->null_count() == all.table->num_rows()) continue;
    Result<graph::Tensor> y = target_of(t, all.table->column(c), all.name_row());
    if (!y.ok()) {
      print_err("{}; '{}' is read without this target\n", y.status().message(), path);
      continue;
    }
    tensors[t.field] = *std::move(y);
    fields.push_back(t.describe());
  }
  data::Input out;
  DS_ASSIGN(out.data, data::ArrayDataset::create(std::move(fields), std::move(tensors)));
  for (const int64_t row : all.rows) out.labels.push_back(std::to_string(row));
  return out;
}

std::string step_names() {
  std::string text;
  for (const StepInfo& info : steps()) text += (text.empty() ? "" : ", ") + info.kind;
  return text;
}

}  // namespace

data::Source table_source() {
  std::vector<data::Key> keys = {
      {"file", "CSV, TSV, JSON lines, Parquet or Arrow (Feather), by its name: one row for each sample", "", true},
      {"target", "the column to be predicted, or several", "", true},
      {"test", "another file, whose rows are the test part", ""},
      {"pipeline",
       "steps that make numbers of the columns, fitted on the training part: a list of names, of names with options, "
       "or a file as `deepseek data clean` takes it (.yaml, or .json, which is fitted already): " +
           step_names(),
       kPipeline},
      {"columns", "only these as inputs", ""},
      {"ignore", "all but these as inputs", ""},
      {"task",
       fmt::format("auto, classification or regression; auto: text and booleans are class labels, floats numbers, and "
                   "integers labels where there are two of them, or at most {} that are not negative, and each occurs "
                   "twice on average",
                   kLabels),
       "auto"},
      {"test_fraction", "without a test file: how much of all rows is the test part, in [0, 1)", "0.2"},
      {"validation_fraction", "how much of the other rows is held out, in [0, 1)", "0.1"},
      {"seed", "of the random choices of parts", "0"},
      {"stratify",
       "a column whose values are shared out evenly; auto: the target, where it is one of class labels; false: none",
       "auto"},
      {"group", "a column whose equal values stay in one part; it is an input only where `columns` names it", ""},
      {"time",
       "a column by which the latest rows are the test part, and those before them the validation part; "
       "it stays an input unless `ignore` names it",
       ""},
      {"drop_missing_target", "leaves out rows without a target; false: they are an error", "true"},
      {"format", "csv, tsv, jsonl, parquet or arrow, where the file's name does not say", ""},
      {"types", "of columns of CSV and JSON lines, {id: string}, where what is found is not wanted", "{}"},
      {"delimiter", "of CSV", ","},
      {"header", "whether the first row of CSV has the names; otherwise they are f0, f1, ...", "true"},
      {"encoding", "of text: latin1, cp1252, utf-16, ...", "utf-8"},
      {"null_values", "what else than an empty field of CSV is a missing value",
       join(FileOptions().null_values, ", ")}};
  return {"table",
          "rows of a file, which a pipeline of cleaning steps makes numbers of",
          std::move(keys),
          "data:\n  name: table\n  file: houses.csv\n  target: price\n  ignore: [id]\n  pipeline: [impute, scale, "
          "one_hot]\n",
          open,
          open_input};
}

}  // namespace deepseek::tables

extern "C" void deepseek_register_sources() {
  deepseek::data::register_table_writer(deepseek::tables::write_parts);
  deepseek::data::register_source(deepseek::tables::table_source());
}
