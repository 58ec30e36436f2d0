#include "features/synthesis.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>

#include "base/json.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/progress.h"
#include "base/strings.h"
#include "io/atomic_file.h"
#include "tables/source.h"

namespace deepseek::features {

namespace {

using Json = nlohmann::json;
constexpr const char* kFormat = "deepseek features";
constexpr int kVersion = 1;

void describe(SynthesisConfig& c, OptionTable& t) {
  SynthesisOptions& o = c.options;
  t.field("target", o.target, {.doc = "the table that features are made for"});
  t.field("relationships", c.relationships,
          {.doc = "which column refers to which table: sessions.customer_id -> customers"});
  t.field("aggregations", o.aggregations, {.doc = "of rows that belong to a row"});
  t.field("transforms", o.transforms, {.doc = "of columns of a row"});
  t.field("group_transforms", o.group_transforms, {.doc = "of columns of a row, among rows of the same parent"});
  t.field("where_aggregations", o.where_aggregations,
          {.doc = "aggregations that are also made of rows chosen by `where`"});
  t.field("depth", o.depth, {.doc = "how many steps are stacked", .min = 0, .max = 20});
  t.field("max_features", o.max_features, {.doc = "the first ones, shallow ones before deep ones; 0: all", .min = 0});
  t.field("ignore_tables", o.ignore_tables, {.doc = "of which nothing is made"});
  t.field("all_types", o.all_types, {.doc = "also features that are dates and text"});
  t.field("training_window", c.training_window,
          {.doc = "how far back from the cut-off rows are taken: 30 days; empty: all"});
  t.field("include_cutoff", c.include_cutoff, {.doc = "rows of the very time of the cut-off are known"});
  t.field("max_memory", c.max_memory, {.doc = "an estimate beyond it is an error: 4 GiB; empty: the machine's memory"});
  t.field("max_seconds", c.max_seconds, {.doc = "an estimate beyond it is an error; 0: any time", .min = 0});
}

std::vector<std::string> texts(const YAML::Node& node) {
  if (node.IsScalar()) return {node.as<std::string>()};
  return node.as<std::vector<std::string>>();
}

// Nanoseconds of "30 days", "12 h"; a plain number as it is, for integer times.
Result<int64_t> parse_window(const std::string& text, bool integers) {
  static const std::map<std::string, double> kUnits = {
      {"s", 1e9},       {"second", 1e9}, {"min", 60e9},    {"minute", 60e9}, {"h", 3600e9},
      {"hour", 3600e9}, {"d", 86400e9},  {"day", 86400e9}, {"w", 604800e9},  {"week", 604800e9}};
  size_t digits = 0;
  while (digits < text.size() && (std::isdigit(static_cast<unsigned char>(text[digits])) || text[digits] == '.'))
    ++digits;
  const auto number = parse_number(std::string_view(text).substr(0, digits));
  std::string unit(trim(std::string_view(text).substr(digits)));
  if (unit.size() > 3 && unit.back() == 's') unit.pop_back();
  const auto known = kUnits.find(unit);
  const double factor = integers && unit.empty() ? 1 : known == kUnits.end() ? 0 : known->second;
  if (!number || factor == 0 || *number <= 0 || *number * factor > 9e18)
    return invalid(
        "training_window: expected {}, got '{}'",
        integers ? "a number, in units of the time index" : "a time like '30 days', '12 hours', '15 minutes'", text);
  return static_cast<int64_t>(*number * factor);
}

}  // namespace

Result<SynthesisConfig> SynthesisConfig::parse(std::string_view yaml, const std::string& where) {
  SynthesisConfig config;
  std::vector<std::string> mistakes;
  OptionTable options;
  describe(config, options);
  const auto mistake = [&](const YAML::Node& node, const std::string& text) {
    mistakes.push_back(fmt::format("{}:{}: {}", where, node.Mark().line + 1, text));
  };
  try {
    const YAML::Node root = YAML::Load(std::string(yaml));
    if (!root.IsMap())
      return invalid("{}: expected keys and values, 'tables:', 'relationships:', 'target:' ...", where);
    std::string rest;
    int line = 0;
    for (const auto& item : root) {
      const std::string key = item.first.as<std::string>();
      const YAML::Node& value = item.second;
      if (key == "tables") {
        if (!value.IsMap()) {
          mistake(item.first, "tables: expected names with their index, time_index and types");
          continue;
        }
        for (const auto& table : value) {
          TableConfig t{.name = table.first.as<std::string>()};
          for (const auto& entry : table.second) {
            const std::string option = entry.first.as<std::string>();
            if (option == "index") {
              t.options.index = entry.second.as<std::string>();
            } else if (option == "time_index") {
              t.options.time_index = entry.second.as<std::string>();
            } else if (option == "file") {
              t.file = entry.second.as<std::string>();
            } else if (option == "types") {
              t.options.types = entry.second.as<std::map<std::string, std::string>>();
            } else {
              mistake(entry.first,
                      fmt::format("tables.{}: unknown key '{}'{} There are index, time_index, types, file", t.name,
                                  option, did_you_mean(option, {"index", "time_index", "types", "file"})));
            }
          }
          config.tables.push_back(std::move(t));
        }
      } else if (key == "where") {
        for (const auto& entry : value) {
          const std::string column = entry.first.as<std::string>();
          int64_t most = 0;
          if (entry.second.IsScalar() && YAML::convert<int64_t>::decode(entry.second, most))
            config.where_most[column] = most;
          else
            config.options.where[column] = texts(entry.second);
        }
      } else if (key == "ignore_columns") {
        for (const auto& entry : value)
          config.options.ignore_columns[entry.first.as<std::string>()] = texts(entry.second);
      } else {
        YAML::Emitter out;
        out << YAML::Flow << value;
        while (line < item.first.Mark().line) rest += '\n', ++line;
        rest += (rest.empty() || rest.back() == '\n' ? "" : "\n") + key + ": " + out.c_str();
      }
    }
    if (const Status status = options.load_yaml(rest, where); !status.ok()) mistakes.push_back(status.message());
  } catch (const YAML::Exception& e) {
    return invalid("{}:{}: {}", where, e.mark.line + 1, e.msg);
  }
  if (config.tables.empty()) mistakes.push_back(where + ": tables: expected one table at least, with its name");
  if (config.options.target.empty()) mistakes.push_back(where + ": target: name the table that features are made for");
  if (!mistakes.empty()) return invalid("{}", join(mistakes, "\n"));
  return config;
}

Result<Entities> Synthesis::entities_of(const NamedTables& tables) const {
  Entities entities;
  std::vector<std::string> names;
  for (const auto& t : config_.tables) {
    names.push_back(t.name);
    const auto found = tables.find(t.name);
    if (found == tables.end()) return invalid("table '{}' is missing", t.name);
    DS_TRY(entities.add(t.name, found->second, t.options));
  }
  for (const auto& [name, table] : tables)
    if (std::find(names.begin(), names.end(), name) == names.end())
      return invalid("there is no table '{}' in the description{} There are {}", name, did_you_mean(name, names),
                     join(names, ", "));
  for (const std::string& text : config_.relationships) {
    const size_t arrow = text.find("->"), dot = text.find('.');
    if (arrow == std::string::npos || dot == std::string::npos || dot > arrow)
      return invalid("relationships: expected 'child.column -> parent', got '{}'", text);
    const std::string child(trim(text.substr(0, dot))), column(trim(text.substr(dot + 1, arrow - dot - 1))),
        parent(trim(text.substr(arrow + 2)));
    DS_TRY(entities.relate(child, column, parent));
  }
  return entities;
}

Status Synthesis::fit(const NamedTables& tables) {
  DS_ASSIGN(const Entities entities, entities_of(tables));
  SynthesisOptions options = config_.options;
  for (const auto& [key, most] : config_.where_most) {
    const size_t dot = key.find('.');
    if (dot == std::string::npos) return invalid("where: expected table.column, got '{}'", key);
    const auto table = tables.find(key.substr(0, dot));
    if (table == tables.end()) return invalid("where: there is no table '{}'", key.substr(0, dot));
    DS_ASSIGN(const int c, tables::find_column(*table->second->schema(), key.substr(dot + 1), "where"));
    DS_ASSIGN(const auto counts, tables::value_counts(tables::TableSource(table->second), {c}));
    std::vector<std::pair<int64_t, std::string>> found;
    for (const auto& [word, n] : counts[0]) found.emplace_back(-n, word);
    std::sort(found.begin(), found.end());
    for (size_t i = 0; i < found.size() && static_cast<int64_t>(i) < most; ++i)
      options.where[key].push_back(found[i].second);
  }
  DS_ASSIGN(const Definitions definitions, Definitions::make(entities, options));
  definitions_ = dump_json(definitions.to_json(entities));
  names_.clear();
  for (const int f : definitions.targets()) names_.push_back(definitions.features()[static_cast<size_t>(f)].name);
  fitted_ = true;
  return {};
}

std::vector<std::string> Synthesis::features() const { return names_; }

Result<ComputeOptions> Synthesis::options_for(const Entities& entities, const Instances& instances) const {
  ComputeOptions options{.include_cutoff = config_.include_cutoff};
  DS_ASSIGN(const int target, entities.find(config_.options.target));
  int64_t rows = entities.entities()[static_cast<size_t>(target)].size();
  if (instances.rows) {
    DS_ASSIGN(options.rows, entities.rows_of(target, instances.rows));
    rows = instances.rows->length();
  }
  if (instances.cutoffs) {
    DS_ASSIGN(options.cutoffs, times_of("cutoff_time", instances.cutoffs));
    if (instances.cutoffs->null_count() > 0)
      return invalid("cutoff_time: {} are missing", instances.cutoffs->null_count());
    if (options.cutoffs.size() != 1 && static_cast<int64_t>(options.cutoffs.size()) != rows)
      return invalid("cutoff_time: expected one, or one for each of {} rows, got {}", rows, options.cutoffs.size());
    // Cut-offs of all rows come in the order of the table.
    const auto& order = entities.entities()[static_cast<size_t>(target)].order;
    if (options.cutoffs.size() > 1 && !options.rows && !order.empty()) {
      std::vector<int32_t> place(order.size());
      for (size_t i = 0; i < order.size(); ++i) place[static_cast<size_t>(order[i])] = static_cast<int32_t>(i);
      options.rows = place;
    }
    bool integers = false, any = false;
    for (const auto& e : entities.entities())
      if (!e.times.empty()) any = true, integers |= e.integer_time;
    if (!any) return invalid("cutoff_time: no table has a time_index, so nothing would be left out");
    if (integers != arrow::is_integer(instances.cutoffs->type()->id()))
      return invalid("cutoff_time is {}, but time indices are {}", instances.cutoffs->type()->ToString(),
                     integers ? "integers" : "dates");
    if (!config_.training_window.empty()) {
      DS_ASSIGN(options.window, parse_window(config_.training_window, integers));
    }
  } else if (!config_.training_window.empty()) {
    return invalid("training_window reaches back from a cut-off time; give cutoff_time");
  }
  return options;
}

std::string Estimate::text() const {
  return fmt::format("{} features of {} rows: {} for them, {} while computing, {}", features, rows,
                     format_bytes(result_bytes), format_bytes(working_bytes),
                     seconds < 1 ? "less than a second" : "about " + duration_text(std::ceil(seconds)));
}

// Time by two samples: what grows with the rows, and what does not.
Result<Estimate> Synthesis::estimate(const Entities& entities, const Definitions& definitions,
                                     const ComputeOptions& options) const {
  const auto& target = entities.entities()[static_cast<size_t>(definitions.entity())];
  Estimate e{.features = static_cast<int64_t>(definitions.targets().size()),
             .rows = options.rows ? static_cast<int64_t>(options.rows->size()) : target.size()};
  e.result_bytes = static_cast<size_t>(e.rows * e.features) * sizeof(double);
  int64_t largest = 0;
  for (const auto& entity : entities.entities()) largest = std::max(largest, entity.size());
  // Columns of the largest table: inputs, their order, what is made of them.
  e.working_bytes = e.result_bytes + static_cast<size_t>(largest) * sizeof(double) * 6;
  const auto seconds = [&](int64_t rows) -> Result<double> {
    ComputeOptions some = options;
    some.progress = nullptr;
    std::vector<int32_t> chosen;
    std::vector<int64_t> cutoffs = options.cutoffs.size() > 1 ? std::vector<int64_t>() : options.cutoffs;
    for (int64_t k = 0; k < rows; ++k) {
      const auto i = static_cast<size_t>(k * e.rows / rows);
      chosen.push_back(options.rows ? (*options.rows)[i] : static_cast<int32_t>(i));
      if (options.cutoffs.size() > 1) cutoffs.push_back(options.cutoffs[i]);
    }
    some.rows = std::move(chosen);
    some.cutoffs = std::move(cutoffs);
    const auto start = std::chrono::steady_clock::now();
    DS_TRY(compute(entities, definitions, some).status());
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const int64_t many = std::min<int64_t>(e.rows, std::clamp<int64_t>(e.rows / 200, 20, 2000)), few = many / 4;
  if (few < 1) return e;
  DS_ASSIGN(const double less, seconds(few));
  DS_ASSIGN(const double more, seconds(many));
  const double per_row = std::max(0.0, more - less) / static_cast<double>(many - few);
  e.seconds = more + per_row * static_cast<double>(e.rows - many);
  return e;
}

Result<Estimate> Synthesis::estimate(const NamedTables& tables, const Instances& instances) const {
  if (!fitted_) return invalid("the synthesis is not fitted yet; call fit() or load one");
  DS_ASSIGN(const Entities entities, entities_of(tables));
  DS_ASSIGN(const Definitions definitions, Definitions::from_json(parse_json<Json>(definitions_), entities));
  DS_ASSIGN(const ComputeOptions options, options_for(entities, instances));
  return estimate(entities, definitions, options);
}

Result<tables::Table> Synthesis::transform(const NamedTables& tables, const Instances& instances,
                                           const std::function<Status(double)>& progress) const {
  if (!fitted_) return invalid("the synthesis is not fitted yet; call fit() or load one");
  DS_ASSIGN(const Entities entities, entities_of(tables));
  DS_ASSIGN(const Definitions definitions, Definitions::from_json(parse_json<Json>(definitions_), entities));
  DS_ASSIGN(ComputeOptions options, options_for(entities, instances));
  const auto& target = entities.entities()[static_cast<size_t>(definitions.entity())];
  const auto rows = static_cast<size_t>(options.rows ? static_cast<int64_t>(options.rows->size()) : target.size());
  size_t limit = machine_memory();
  if (!config_.max_memory.empty()) {
    DS_ASSIGN(limit, parse_bytes(config_.max_memory));
  }
  const auto beyond = [&](const std::string& budget, const Estimate& e) {
    return Status(
        ErrorCode::kUnsupported,
        fmt::format("{} is beyond {}; set a lower depth, fewer primitives or max_features, or compute instances "
                    "part by part",
                    e.text(), budget));
  };
  // Memory needs no trial.
  Estimate e{.features = static_cast<int64_t>(definitions.targets().size()), .rows = static_cast<int64_t>(rows)};
  e.result_bytes = rows * definitions.targets().size() * sizeof(double);
  e.working_bytes = e.result_bytes;
  if (e.working_bytes > limit) return beyond("max_memory, " + format_bytes(limit), e);
  if (config_.max_seconds > 0) {
    DS_ASSIGN(const Estimate tried, estimate(entities, definitions, options));
    if (tried.seconds > config_.max_seconds) return beyond(fmt::format("max_seconds, {}", config_.max_seconds), tried);
  }
  options.progress = progress;
  DS_ASSIGN(const std::vector<Vector> vectors, compute(entities, definitions, options));
  std::vector<std::shared_ptr<arrow::Field>> fields;
  std::vector<tables::Column> columns;
  if (!target.options.index.empty()) {
    const int c = target.fields[static_cast<size_t>(target.index)].column;
    fields.push_back(arrow::field(target.options.index, target.table->field(c)->type()));
    columns.push_back(instances.rows ? instances.rows : target.table->column(c));
    if (instances.rows) fields.back() = fields.back()->WithType(instances.rows->type());
  }
  for (size_t t = 0; t < vectors.size(); ++t) {
    const Feature& feature = definitions.features()[static_cast<size_t>(definitions.targets()[t])];
    DS_ASSIGN(const auto array, to_arrow(vectors[t], feature.schema.logical));
    fields.push_back(arrow::field(feature.name, array->type()));
    columns.push_back(std::make_shared<arrow::ChunkedArray>(array));
  }
  return arrow::Table::Make(arrow::schema(std::move(fields)), std::move(columns), static_cast<int64_t>(rows));
}

Status Synthesis::save(const std::string& path) const {
  if (!fitted_) return invalid("the synthesis is not fitted yet; call fit() before save()");
  SynthesisConfig config = config_;
  OptionTable options;
  describe(config, options);
  Json root = {{"format", kFormat}, {"version", kVersion}, {"options", options.to_yaml()}, {"tables", Json::array()}};
  for (const auto& t : config_.tables)
    root["tables"].push_back({{"name", t.name},
                              {"index", t.options.index},
                              {"time_index", t.options.time_index},
                              {"types", t.options.types}});
  root["synthesis"] = parse_json<Json>(definitions_);
  const std::string text = dump_json(root, 1) + "\n";
  return io::write_file_atomic(path, std::as_bytes(std::span(text)));
}

Result<Synthesis> Synthesis::load(const std::string& path) {
  DS_ASSIGN(const std::vector<std::byte> bytes, io::read_file(path));
  const auto corrupt = [&](const std::string& why) {
    return make_error(ErrorCode::kDataCorrupt, "'{}' is no feature synthesis that was saved: {}", path, why);
  };
  SynthesisConfig config;
  try {
    const auto* text = reinterpret_cast<const char*>(bytes.data());
    const Json root = parse_json<Json>(std::string_view(text, bytes.size()));
    if (root.at("format") != kFormat) return corrupt("another format");
    if (root.at("version") != kVersion)
      return corrupt(fmt::format("version {}, this program reads {}", dump_json(root.at("version")), kVersion));
    OptionTable options;
    describe(config, options);
    DS_TRY(options.load_yaml(root.at("options").get<std::string>(), path));
    for (const Json& t : root.at("tables"))
      config.tables.push_back({t.at("name"), {t.at("index"), t.at("time_index"), t.at("types")}, ""});
    Synthesis synthesis(std::move(config));
    synthesis.definitions_ = dump_json(root.at("synthesis"));
    const Json& features = root.at("synthesis").at("features");
    for (const Json& f : root.at("synthesis").at("chosen"))
      synthesis.names_.push_back(features.at(f.get<size_t>()).at("name").get<std::string>());
    synthesis.fitted_ = true;
    return synthesis;
  } catch (const Json::exception& e) {
    return corrupt(e.what());
  }
}

}  // namespace deepseek::features
