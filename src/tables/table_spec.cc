#include "tables/table_spec.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/strings.h"
#include "tables/columns.h"

namespace deepseek::tables {
namespace {

using Json = nlohmann::json;

Json to_json(const FileOptions& o) {
  return {{"format", o.format},     {"types", o.types},   {"delimiter", o.delimiter},
          {"encoding", o.encoding}, {"header", o.header}, {"null_values", o.null_values}};
}

FileOptions options_from(const Json& json) {
  FileOptions o;
  json.at("format").get_to(o.format);
  json.at("types").get_to(o.types);
  json.at("delimiter").get_to(o.delimiter);
  json.at("encoding").get_to(o.encoding);
  json.at("header").get_to(o.header);
  json.at("null_values").get_to(o.null_values);
  return o;
}

}  // namespace

Result<std::string> TableSpec::to_text() const {
  Json json = {{"source", "table"}, {"columns", Json::array()}, {"features", features}, {"targets", Json::array()}};
  DS_ASSIGN(json["pipeline"], pipeline.to_json());
  for (const Pipeline::Input& c : columns) json["columns"].push_back({c.name, c.type});
  for (const Target& t : targets) json["targets"].push_back(t.to_json());
  json["options"] = to_json(options);
  return dump_json(json);
}

Result<TableSpec> TableSpec::from_text(const std::string& text) {
  TableSpec spec;
  try {
    const Json json = parse_json<Json>(text);
    DS_ASSIGN(spec.pipeline, Pipeline::from_json(json.at("pipeline"), "pipeline of the input spec"));
    for (const Json& c : json.at("columns"))
      spec.columns.push_back({c.at(0).get<std::string>(), c.at(1).get<std::string>()});
    json.at("features").get_to(spec.features);
    for (const Json& t : json.at("targets")) spec.targets.push_back(Target::from_json(t));
    spec.options = options_from(json.at("options"));
  } catch (const Json::exception& e) {
    return make_error(ErrorCode::kDataCorrupt, "[data] the input spec of a table is damaged: {}", e.what());
  }
  return spec;
}

FileOptions options_like(const FileOptions& options, const std::string& path,
                         const std::vector<Pipeline::Input>& columns, const std::vector<Target>& targets) {
  FileOptions like = options;
  if (!format_of(path).empty()) like.format = "";  // this file's name says what it is
  like.types.clear();
  const std::string format = format_of(path, like);
  if (format != "csv" && format != "tsv") return like;  // the others carry types
  like.types = options.types;
  const auto keep = [&](const std::string& name, const std::string& type) {
    const auto known = type_of_name(type);
    if (known.ok()) like.types[name] = arrow::is_integer((*known)->id()) ? "double" : type;
  };
  for (const Pipeline::Input& c : columns) keep(c.name, c.type);
  for (const Target& t : targets)
    if (t.type == "string") keep(t.column, t.type);
  return like;
}

Status check_columns(const arrow::Table& table, const std::vector<Pipeline::Input>& columns, const std::string& path) {
  const std::vector<std::string> names = table.schema()->field_names();
  std::vector<std::string> missing;
  for (const Pipeline::Input& c : columns) {
    if (std::find(names.begin(), names.end(), c.name) != names.end()) continue;
    const std::string near = nearest(c.name, names);
    missing.push_back(fmt::format("'{}'{}", c.name, near.empty() ? "" : fmt::format(" (did you mean '{}'?)", near)));
  }
  if (missing.empty()) return {};
  constexpr size_t kShown = 20;
  const size_t shown = std::min(kShown, names.size());
  return invalid("[data] '{}' lacks {} that training data had: {}; it has {}{}", path,
                 missing.size() == 1 ? "a column" : fmt::format("{} columns", missing.size()), join(missing, ", "),
                 join({names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown)}, ", "),
                 names.size() > shown ? ", ..." : "");
}

Result<graph::Tensor> inputs_of(const TableSpec& spec, const Table& raw, const std::string& path,
                                const NameRow& name_row) {
  DS_TRY(check_columns(*raw, spec.columns, path));
  std::vector<int> numbers;
  for (const Pipeline::Input& c : spec.columns) {
    DS_ASSIGN(const int number, find_column(*raw->schema(), c.name, fmt::format("'{}'", path)));
    numbers.push_back(number);
  }
  DS_ARROW_ASSIGN(Table table, raw->SelectColumns(numbers));
  DS_ASSIGN(table, as_reals(table));
  Result<Table> made = spec.pipeline.transform(table);
  if (!made.ok()) return std::move(made).status().note(fmt::format("in the pipeline of '{}'", path));
  if ((*made)->schema()->field_names() != spec.features)
    return make_error(ErrorCode::kDataCorrupt, "[data] '{}': the pipeline made the features {}, expected {}", path,
                      join((*made)->schema()->field_names(), ", "), join(spec.features, ", "));
  return to_matrix(**made, name_row);
}

}  // namespace deepseek::tables
