#include "tables/pipeline.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/strings.h"
#include "io/atomic_file.h"
#include "tables/columns.h"

namespace deepseek::tables {

namespace {

using Json = nlohmann::json;
constexpr const char* kFormat = "deepseek pipeline";
constexpr int kVersion = 1;

std::string kinds() {
  std::vector<std::string> names;
  for (const StepInfo& info : steps()) names.push_back(info.kind);
  return join(names, ", ");
}

// Text as Polars keeps it, as plain strings, which Arrow's functions take; without what pandas notes of its columns,
// which steps make untrue.
Result<Table> without_views(const Table& table) {
  Table result = table->ReplaceSchemaMetadata(nullptr);
  for (int c = 0; c < table->num_columns(); ++c) {
    if (table->field(c)->type()->id() != arrow::Type::STRING_VIEW) continue;
    DS_ASSIGN(const Column text, cast_column(table->column(c), arrow::utf8()));
    DS_ASSIGN(result, set_column(result, c, text));
  }
  return result;
}

}  // namespace

const std::vector<StepInfo>& steps() {
  static const std::vector<StepInfo> list = {
      {"types", "text as the numbers, booleans and dates that it says", make_types},
      {"leakage", "warns of columns that tell the target too well, or number the rows", make_leakage},
      {"impute", "fills missing values", make_impute},
      {"outliers", "bounds numbers, or marks or leaves out what is outside", make_outliers},
      {"duplicates", "leaves out rows that came before (of training data)", make_duplicates},
      {"constant", "leaves out columns of one value", make_constant},
      {"scale", "brings numbers to a common scale", make_scale},
      {"ordinal", "text as numbers of its sorted values", make_ordinal},
      {"one_hot", "text as a column of booleans for each value", make_one_hot},
      {"target", "text as the mean of the target, of other rows in training data", make_target},
      {"hashing", "text as numbers by a hash", make_hashing},
      {"dates", "dates and times as year, month, day, ...", make_dates},
      {"text", "natural language as numbers of words, characters, ...", make_text},
      {"interactions", "columns of pairs of columns, those that tell about the target", make_interactions},
      {"select", "leaves out columns that tell least about the target", make_select},
  };
  return list;
}

Result<std::unique_ptr<Step>> make_step(const std::string& kind) {
  std::vector<std::string> names;
  for (const StepInfo& info : steps()) {
    if (info.kind == kind) return info.make();
    names.push_back(info.kind);
  }
  return invalid("unknown step '{}'{} There are {}", kind, did_you_mean(kind, names), kinds());
}

Result<Pipeline> Pipeline::parse(std::string_view yaml, const std::string& where) {
  Pipeline pipeline;
  std::vector<std::string> mistakes;
  try {
    const YAML::Node root = YAML::Load(std::string(yaml));
    const bool targeted = root.IsMap() && root["target"].IsDefined();
    if (!root.IsMap() || !root["steps"].IsDefined() || !root["steps"].IsSequence() || root.size() != (targeted ? 2 : 1))
      return invalid("{}: expected 'steps:' with a list of steps, and perhaps 'target:'; there are {}", where, kinds());
    if (targeted && root["target"].IsSequence())
      pipeline.targets_ = root["target"].as<std::vector<std::string>>();
    else if (targeted)
      pipeline.targets_ = {root["target"].as<std::string>()};
    for (const YAML::Node& item : root["steps"]) {
      const int line = item.Mark().line;
      const bool plain = item.IsScalar(), map = item.IsMap() && item.size() == 1;
      if (!plain && !map) {
        mistakes.push_back(fmt::format("{}:{}: expected a step's name, or its name with options", where, line + 1));
        continue;
      }
      const auto kind = plain ? item.as<std::string>() : item.begin()->first.as<std::string>();
      Result<std::unique_ptr<Step>> step = make_step(kind);
      if (!step.ok()) {
        mistakes.push_back(fmt::format("{}:{}: {}", where, line + 1, step.status().message()));
        continue;
      }
      OptionTable options;
      (*step)->describe(options);
      if (map && !item.begin()->second.IsNull()) {
        YAML::Emitter out;
        out << YAML::Flow << item.begin()->second;
        // As many lines before it as there were, so that errors name the right one.
        const Status status = options.load_yaml(std::string(static_cast<size_t>(line), '\n') + out.c_str(), where);
        if (!status.ok()) mistakes.push_back(status.message());
      }
      pipeline.steps_.push_back(std::move(step).value());
    }
  } catch (const YAML::Exception& e) {
    return invalid("{}:{}: {}", where, e.mark.line + 1, e.msg);
  }
  if (!mistakes.empty()) return invalid("{}", join(mistakes, "\n"));
  return pipeline;
}

namespace {

Status not_saved(const std::string& where, const std::string& why) {
  return make_error(ErrorCode::kDataCorrupt, "'{}' is no pipeline that was saved: {}", where, why);
}

}  // namespace

Result<Pipeline> Pipeline::load(const std::string& path) {
  DS_ASSIGN(const std::vector<std::byte> bytes, io::read_file(path));
  try {
    const auto* text = reinterpret_cast<const char*>(bytes.data());
    return from_json(parse_json<Json>(std::string_view(text, bytes.size())), path);
  } catch (const Json::exception& e) {
    return not_saved(path, e.what());
  }
}

Result<Pipeline> Pipeline::from_json(const Json& root, const std::string& where) {
  Pipeline pipeline;
  try {
    if (root.at("format") != kFormat) return not_saved(where, "another format");
    if (root.at("version") != kVersion)
      return not_saved(where,
                       fmt::format("version {}, this program reads {}", dump_json(root.at("version")), kVersion));
    const Json& target = root.at("target");  // one, "" for none, or a list
    if (target.is_array())
      pipeline.targets_ = target.get<std::vector<std::string>>();
    else if (!target.get<std::string>().empty())
      pipeline.targets_ = {target.get<std::string>()};
    for (const Json& input : root.at("inputs")) pipeline.inputs_.push_back({input.at(0), input.at(1)});
    for (const Json& saved : root.at("steps")) {
      DS_ASSIGN(std::unique_ptr<Step> step, make_step(saved.at("step").get<std::string>()));
      OptionTable options;
      step->describe(options);
      DS_TRY(options.load_yaml(saved.at("options").get<std::string>(), where));
      step->targets = pipeline.targets_;
      DS_TRY(step->set_state(saved.at("state")));
      pipeline.steps_.push_back(std::move(step));
    }
  } catch (const Json::exception& e) {
    return not_saved(where, e.what());
  }
  pipeline.fitted_ = true;
  return pipeline;
}

Result<Json> Pipeline::to_json() const {
  if (!fitted_) return invalid("the pipeline is not fitted yet; call fit() before save()");
  Json root = {{"format", kFormat}, {"version", kVersion}, {"inputs", Json::array()}, {"steps", Json::array()}};
  if (targets_.size() > 1)
    root["target"] = targets_;
  else
    root["target"] = targets_.empty() ? std::string() : targets_[0];
  for (const Input& input : inputs_) root["inputs"].push_back({input.name, input.type});
  for (const auto& step : steps_) {
    OptionTable options;
    step->describe(options);
    root["steps"].push_back({{"step", step->kind()}, {"options", options.to_yaml()}, {"state", step->state()}});
  }
  return root;
}

Status Pipeline::save(const std::string& path) const {
  DS_ASSIGN(const Json root, to_json());
  const std::string text = dump_json(root, 1) + "\n";
  return io::write_file_atomic(path, std::as_bytes(std::span(text)));
}

namespace {

// Training data as the first `steps` steps leave it, made anew each time.
class StepSource : public Source {
 public:
  StepSource(const Source& inner, const std::vector<std::unique_ptr<Step>>& steps, size_t count,
             std::shared_ptr<arrow::Schema> schema)
      : inner_(inner), steps_(steps), count_(count), schema_(std::move(schema)) {}
  const arrow::Schema& schema() const override { return *schema_; }
  Status each(const std::function<Status(const Table&, int64_t)>& f) const override {
    std::vector<int64_t> first(count_ + 1);  // rows that each step has seen
    DS_TRY(inner_.each([&](const Table& batch, int64_t) -> Status {
      DS_ASSIGN(Table table, without_views(batch));
      for (size_t s = 0; s < count_; ++s) {
        const int64_t rows = table->num_rows();
        DS_ASSIGN(table, steps_[s]->transform(table, {true, first[s]}));
        first[s] += rows;
      }
      const int64_t at = first[count_];
      first[count_] += table->num_rows();
      return f(table, at);
    }));
    rows_ = first[count_];
    return {};
  }

 private:
  const Source& inner_;
  const std::vector<std::unique_ptr<Step>>& steps_;
  size_t count_;
  std::shared_ptr<arrow::Schema> schema_;
};

}  // namespace

bool Pipeline::is_target(const std::string& name) const {
  return std::find(targets_.begin(), targets_.end(), name) != targets_.end();
}

std::vector<Pipeline::Input> Pipeline::inputs() const {
  std::vector<Input> inputs = inputs_;
  std::erase_if(inputs, [&](const Input& input) { return is_target(input.name); });
  return inputs;
}

Status Pipeline::learn_inputs(const arrow::Schema& schema) {
  std::vector<Input> inputs;
  for (const auto& field : schema.fields()) {
    DS_TRY(find_column(schema, field->name(), "training data").status());
    inputs.push_back({field->name(), field->type()->ToString()});
  }
  for (const std::string& target : targets_) DS_TRY(find_column(schema, target, "target").status());
  inputs_ = std::move(inputs);
  for (const auto& step : steps_) step->targets = targets_;
  return {};
}

Result<Table> Pipeline::fit_transform(const Table& given) {
  if (given->num_rows() == 0) return invalid("training data has no rows");
  fitted_ = false;
  DS_ASSIGN(Table result, without_views(given));
  DS_TRY(learn_inputs(*result->schema()));
  for (const auto& step : steps_) {
    DS_TRY(step->fit(TableSource(result)));
    DS_ASSIGN(result, step->transform(result, {true, 0}));
    if (result->num_rows() == 0) return invalid("{}: no row of the training data is left", step->kind());
  }
  fitted_ = true;
  return result;
}

Status Pipeline::fit(OpenStream open) {
  fitted_ = false;
  DS_ASSIGN(const std::unique_ptr<StreamSource> source, StreamSource::make(std::move(open)));
  DS_ARROW_ASSIGN(Table empty, arrow::Table::MakeEmpty(arrow::schema(source->schema().fields())));
  DS_ASSIGN(empty, without_views(empty));
  DS_TRY(learn_inputs(*empty->schema()));
  for (size_t s = 0; s < steps_.size(); ++s) {
    const StepSource before(*source, steps_, s, empty->schema());
    DS_TRY(steps_[s]->fit(before));
    DS_ASSIGN(empty, steps_[s]->transform(empty, {}));
  }
  if (source->known_rows() == 0) return invalid("training data has no rows");
  fitted_ = true;
  return {};
}

Status Pipeline::transform_training(OpenStream open, const std::function<Status(const Table&)>& f) const {
  if (!fitted_) return invalid("the pipeline is not fitted yet; call fit() first");
  DS_ASSIGN(const std::unique_ptr<StreamSource> source, StreamSource::make(std::move(open)));
  const StepSource steps(*source, steps_, steps_.size(), arrow::schema(source->schema().fields()));
  return steps.each([&](const Table& table, int64_t) { return f(table); });
}

Result<Table> Pipeline::conform(const Table& table) const {
  std::vector<std::shared_ptr<arrow::Field>> fields;
  std::vector<Column> columns;
  for (const Input& input : inputs_) {
    if (is_target(input.name) && table->schema()->GetFieldIndex(input.name) < 0) continue;
    DS_ASSIGN(const int c, find_column(*table->schema(), input.name, "the pipeline was fitted with it, but here"));
    Column column = table->column(c);
    if (const std::string type = column->type()->ToString(); type != input.type) {
      const auto wanted = type_of_name(input.type);
      Result<Column> same = wanted.ok() ? cast_column(column, *wanted) : invalid("there is no conversion");
      if (!same.ok())
        return invalid("column '{}' is {}, in training data it was {}: {}", input.name, type, input.type,
                       same.status().message());
      column = *same;
    }
    fields.push_back(table->field(c)->WithType(column->type()));
    columns.push_back(std::move(column));
  }
  return arrow::Table::Make(arrow::schema(std::move(fields)), std::move(columns), table->num_rows());
}

Result<Table> Pipeline::transform(const Table& table) const {
  if (!fitted_) return invalid("the pipeline is not fitted yet; call fit() or load one");
  DS_ASSIGN(Table result, without_views(table));
  DS_ASSIGN(result, conform(result));
  for (const auto& step : steps_) {
    DS_ASSIGN(result, step->transform(result, {}));
  }
  return result;
}

std::vector<std::string> Pipeline::notes() const {
  std::vector<std::string> notes;
  for (const auto& step : steps_)
    for (const std::string& note : step->notes()) notes.push_back(step->kind() + ": " + note);
  return notes;
}

}  // namespace deepseek::tables
