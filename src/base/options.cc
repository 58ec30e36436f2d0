#include "base/options.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/file_kind.h"
#include "base/files.h"
#include "base/json.h"
#include "base/strings.h"
#include "base/synonyms.h"

namespace deepseek {
namespace {

constexpr size_t kMaxBytes = 1 << 20;
constexpr size_t kMaxDepth = 32;
constexpr size_t kMaxValues = 100'000;
constexpr size_t kMaxKey = 200;  // YAML itself takes no more than 1024 characters

std::string type_name(const OptionTable::Target& target) {
  constexpr const char* kNames[] = {"true or false", "an integer", "a number", "text", "a list", "a map", "a number"};
  return kNames[target.index()];
}

std::string number(double value) { return fmt::format("{}", value); }

std::string expected(const OptionTable::Target& target, const OptionMeta& meta) {
  if (!meta.choices.empty()) return "one of " + join(meta.choices, ", ");
  std::string text = type_name(target);
  if (std::isfinite(meta.min) && std::isfinite(meta.max))
    text += " in [" + number(meta.min) + ", " + number(meta.max) + "]";
  else if (std::isfinite(meta.min))
    text += " >= " + number(meta.min);
  else if (std::isfinite(meta.max))
    text += " <= " + number(meta.max);
  return std::holds_alternative<std::optional<double>*>(target) ? text + " or auto" : text;
}

template <class T>
bool read_number(const std::string& text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

// Reads the text into the target; false if it is of another type or out of range.
bool assign(const OptionTable::Target& target, const OptionMeta& meta, const std::string& text) {
  const auto in_range = [&](double v) { return v >= meta.min && v <= meta.max; };
  if (bool* const* p = std::get_if<bool*>(&target)) {
    if (text != "true" && text != "false") return false;
    **p = text == "true";
    return true;
  }
  if (int64_t* const* p = std::get_if<int64_t*>(&target)) {
    int64_t v = 0;
    return read_number(text, v) && in_range(static_cast<double>(v)) && (**p = v, true);
  }
  if (double* const* p = std::get_if<double*>(&target)) {
    double v = 0;
    return read_number(text, v) && std::isfinite(v) && in_range(v) && (**p = v, true);
  }
  if (std::optional<double>* const* p = std::get_if<std::optional<double>*>(&target)) {
    if (text == "auto") return (*p)->reset(), true;
    double v = 0;
    return read_number(text, v) && std::isfinite(v) && in_range(v) && (**p = v, true);
  }
  if (std::string* const* p = std::get_if<std::string*>(&target)) {
    if (!meta.choices.empty() && std::find(meta.choices.begin(), meta.choices.end(), text) == meta.choices.end())
      return false;
    **p = text;
    return true;
  }
  return false;
}

std::string as_quoted(const std::string& text) {
  YAML::Emitter out;
  out << YAML::DoubleQuoted << text;
  return out.c_str();
}

// A key that is no field's may be any text, such as "a: b" or "x.y".
std::string key_text(const std::string& key) {
  const auto plain = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; };
  const bool name = std::all_of(key.begin(), key.end(), plain) && std::isalpha(static_cast<unsigned char>(key[0])) != 0;
  return name ? key : as_quoted(key);
}

std::string value_text(const OptionTable::Target& target) {
  struct Visitor {
    std::string operator()(bool* p) const { return *p ? "true" : "false"; }
    std::string operator()(int64_t* p) const { return std::to_string(*p); }
    std::string operator()(double* p) const { return number(*p); }
    std::string operator()(std::string* p) const { return as_quoted(*p); }
    std::string operator()(std::vector<std::string>* p) const {
      YAML::Emitter out;
      out << YAML::Flow << *p;
      return out.c_str();
    }
    std::string operator()(JsonValue* p) const { return p->text; }  // which is YAML, too
    std::string operator()(std::optional<double>* p) const { return p->has_value() ? number(**p) : "auto"; }
  };
  return std::visit(Visitor{}, target);
}

// Plain scalars are numbers, true, false or null where they look like it; quoted ones are text.
// `left`: how many values more there may be, since a few aliases of aliases stand for any number.
nlohmann::ordered_json json_of(const YAML::Node& node, size_t depth, size_t& left) {
  using Json = nlohmann::ordered_json;
  if (left-- == 0)
    throw YAML::RepresentationException(node.Mark(), fmt::format("more than {} values, aliases included", kMaxValues));
  if (depth > kMaxDepth) throw YAML::RepresentationException(node.Mark(), "nested too deeply");
  if (node.IsMap()) {
    Json map = Json::object();
    for (const auto& item : node) map[item.first.Scalar()] = json_of(item.second, depth + 1, left);
    return map;
  }
  if (node.IsSequence()) {
    Json list = Json::array();
    for (const YAML::Node& item : node) list.push_back(json_of(item, depth + 1, left));
    return list;
  }
  const std::string text = node.IsNull() ? "" : node.Scalar();
  if (node.IsNull()) return nullptr;
  if (node.Tag() == "!") return text;
  int64_t whole = 0;
  if (text == "true" || text == "false") return text == "true";
  if (read_number(text, whole)) return whole;
  if (const std::optional<double> value = parse_number(text); value && std::isfinite(*value)) return *value;
  return text;
}

}  // namespace

// Walks a YAML tree beside the table and collects every mistake.
class OptionReader {
 public:
  OptionReader(OptionTable& table, std::string_view where) : table_(table), where_(where) {}

  Status read(std::string_view text) {
    return load(text, [&](const YAML::Node& root) {
      if (root.IsNull()) return Status();
      if (!root.IsMap()) return invalid("{}: expected 'key: value' lines, got {}", at(root), kind(root));
      map(root, "", 0);
      return Status();
    });
  }
  // One value at a path of keys, as if the config had said so; messages have no line and column.
  Status read_at(const std::vector<std::string>& path, const std::string& text) {
    positions_ = false;
    if (path.size() > kMaxDepth) return invalid("{}: more than {} keys in the path", where_, kMaxDepth);
    return load(text, [&](YAML::Node value) {
      if (value.IsNull()) value.reset(YAML::Node(""));
      for (size_t i = path.size(); i-- > 0;) {
        YAML::Node outer(YAML::NodeType::Map);
        outer[path[i]] = value;
        value.reset(outer);  // "=" would change the node that outer holds
      }
      map(value, "", 0);
      return Status();
    });
  }
  Status result() const {
    return errors_.empty() ? Status() : Status(ErrorCode::kInvalidArgument, join(errors_, "\n"));
  }

 private:
  // Parses, lets `use` walk the tree, and adds up what both found wrong.
  template <class Use>
  Status load(std::string_view text, Use use) {
    if (text.size() > kMaxBytes)
      return invalid("{}: the config has {} bytes, the limit is {}", where_, text.size(), kMaxBytes);
    if (const size_t bad = first_invalid_utf8(text); bad < text.size())
      return invalid("{}: byte {} is not UTF-8; save the config as UTF-8 text", where_, bad);
    try {
      DS_TRY(use(YAML::Load(std::string(text))));
    } catch (const YAML::Exception& e) {
      if (const std::optional<size_t> line = indented_by_tab(text))
        return invalid("{}:{}: not valid YAML: the line is indented by a tab; indent by spaces", where_, *line);
      return invalid("{}: not valid YAML: {}", at(e.mark), e.msg);
    }
    return result();
  }

  // The first line, from 1, that has a tab before its text.
  static std::optional<size_t> indented_by_tab(std::string_view text) {
    const std::vector<std::string> lines = split(text, '\n');
    for (size_t i = 0; i < lines.size(); ++i)
      if (const size_t begin = lines[i].find_first_not_of(" \t"); begin != std::string::npos && lines[i][begin] != '#')
        if (lines[i].find('\t') < begin) return i + 1;
    return std::nullopt;
  }

  std::string at(const YAML::Mark& mark) const {
    return mark.is_null() || !positions_ ? std::string(where_)
                                         : fmt::format("{}:{}:{}", where_, mark.line + 1, mark.column + 1);
  }
  std::string at(const YAML::Node& node) const { return at(node.Mark()); }
  static std::string kind(const YAML::Node& node) {
    if (node.IsMap()) return "a map";
    if (node.IsSequence()) return "a list";
    return node.IsNull() ? "nothing" : "'" + node.Scalar() + "'";
  }

  void map(const YAML::Node& node, const std::string& group, size_t depth) {
    if (depth > kMaxDepth) {
      errors_.push_back(at(node) + ": nested too deeply");
      return;
    }
    std::set<std::string> seen;
    for (const auto& item : node) {
      const std::string key = item.first.IsScalar() ? item.first.Scalar() : "";
      const std::string path = group.empty() ? key : group + "." + key;
      if (key.empty()) {
        errors_.push_back(at(item.first) + ": expected a key of plain text");
      } else if (key.size() > kMaxKey) {
        errors_.push_back(
            fmt::format("{}: expected a key of at most {} bytes, got {}", at(item.first), kMaxKey, key.size()));
      } else if (!seen.insert(key).second) {
        errors_.push_back(fmt::format("{}: '{}' is given twice", at(item.first), path));
      } else if (table_.ignored_.contains(path)) {
        continue;
      } else if (table_.groups_.contains(path)) {
        if (item.second.IsMap())
          map(item.second, path, depth + 1);
        else if (!item.second.IsNull())
          errors_.push_back(
              fmt::format("{}: '{}' expected a map of keys, got {}", at(item.second), path, kind(item.second)));
      } else {
        value(item.first, item.second, group, key, path);
      }
    }
  }

  void value(const YAML::Node& key_node, const YAML::Node& node, const std::string& group, const std::string& key,
             const std::string& path) {
    for (const OptionTable::Field& field : table_.fields_)
      if (field.path == path) return assign_field(field, node);
    if (auto it = table_.free_.find(group); it != table_.free_.end()) {
      if (node.IsNull())
        errors_.push_back(fmt::format("{}: '{}' expected a value, got nothing", at(node), path));
      else
        (*it->second.map)[key] = free_text(node);
      return;
    }
    std::vector<std::string> known;
    const std::string prefix = group.empty() ? "" : group + ".";
    const auto add = [&](const std::string& full) {
      if (full.starts_with(prefix) && full.find('.', prefix.size()) == std::string::npos)
        known.push_back(full.substr(prefix.size()));
    };
    for (const OptionTable::Field& field : table_.fields_) add(field.path);
    for (const auto& [name, doc] : table_.groups_) add(name);
    std::vector<std::string> names = meant(key, known);
    for (std::string& name : names) name = prefix + name;
    if (names.empty()) names = elsewhere(key, path);
    errors_.push_back(fmt::format(
        "{}: unknown key '{}'; {}", at(key_node), path,
        names.empty() ? "known here: " + join(known, ", ") : "did you mean '" + join(names, "' and '") + "'?"));
  }

  // Keys of that name, or of what it is called here, in other groups.
  std::vector<std::string> elsewhere(const std::string& key, const std::string& path) const {
    std::vector<std::string> last, found;
    for (const OptionTable::Field& field : table_.fields_)
      last.push_back(field.path.substr(field.path.rfind('.') + 1));  // from 0 where there is no dot
    std::vector<std::string> names = synonyms(key, last);
    if (names.empty()) names.push_back(key);
    for (const std::string& name : names)
      for (size_t i = 0; i < last.size(); ++i)
        if (last[i] == name && name != "name" && table_.fields_[i].path != path) {
          found.push_back(table_.fields_[i].path);
          break;
        }
    return found;
  }

  // A list of plain values is told as "a,b", what is nested as JSON.
  static std::string free_text(const YAML::Node& node) {
    if (node.IsScalar()) return node.Scalar();
    const auto plain = [](const YAML::Node& item) {
      return item.IsScalar() && item.Scalar().find(',') == std::string::npos;
    };
    if (node.IsSequence() && std::all_of(node.begin(), node.end(), plain)) {
      std::vector<std::string> items;
      for (const YAML::Node& item : node) items.push_back(item.Scalar());
      return join(items, ",");
    }
    size_t left = kMaxValues;
    return dump_json(json_of(node, 0, left));
  }

  void assign_field(const OptionTable::Field& field, const YAML::Node& node) {
    if (std::vector<std::string>* const* list = std::get_if<std::vector<std::string>*>(&field.target);
        list && node.IsSequence()) {
      (*list)->clear();
      for (const YAML::Node& item : node) {
        if (item.IsScalar())
          (*list)->push_back(item.Scalar());
        else
          errors_.push_back(
              fmt::format("{}: '{}' expected a list of values, got {} in it", at(item), field.path, kind(item)));
      }
      return;
    }
    if (JsonValue* const* json = std::get_if<JsonValue*>(&field.target); json && node.IsMap()) {
      size_t left = kMaxValues;
      (*json)->text = dump_json(json_of(node, 0, left));
      return;
    }
    if (node.IsScalar() && assign(field.target, field.meta, node.Scalar())) return;
    std::string text = fmt::format("{}: '{}' expected {}, got {}", at(node), field.path,
                                   expected(field.target, field.meta), kind(node));
    if (node.IsScalar() && !field.meta.choices.empty())
      if (const std::string near = nearest(node.Scalar(), field.meta.choices); !near.empty())
        text += "; did you mean '" + near + "'?";
    errors_.push_back(std::move(text));
  }

  OptionTable& table_;
  std::string_view where_;
  bool positions_ = true;
  std::vector<std::string> errors_;
};

Status OptionTable::load_yaml(std::string_view text, std::string_view where) {
  return OptionReader(*this, where).read(text);
}

Status OptionTable::set(std::string_view assignment, std::string_view where) {
  const size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0)
    return invalid("{}: expected key=value, got '{}'", where, assignment);
  if (const size_t bad = first_invalid_utf8(assignment); bad < assignment.size())
    return invalid("{}: byte {} is not UTF-8", where, bad);
  return OptionReader(*this, where)
      .read_at(split(assignment.substr(0, equals), '.'), std::string(assignment.substr(equals + 1)));
}

namespace {

// What people give in the place of a config: its path may be a table's, a model's or a folder's.
Status check_config_file(const std::string& path) {
  constexpr std::string_view kHelp = "a config is YAML that names data and model, see `deepseek train --help`";
  const Result<OpenFile> opened = open_file(path);
  if (!opened.ok()) {
    std::error_code error;
    if (opened.status().code() == ErrorCode::kNotFound)
      return invalid("{}: no such file{}", path, missing_file_hint(path));
    if (!std::filesystem::is_directory(path, error)) return invalid("{}", opened.status().message());
    for (const char* name : {"config.yaml", "run.yaml"})
      if (const auto inside = std::filesystem::path(path) / name; std::filesystem::is_regular_file(inside, error))
        return invalid("'{}' is a folder, expected a config; give '{}'", path, inside.string());
    return invalid("'{}' is a folder, expected a config; {}", path, kHelp);
  }
  std::vector<std::byte> start(std::min(opened->bytes, kKindBytes));
  DS_ASSIGN(const size_t read, read_at(*opened, 0, start, path));
  start.resize(read);
  const FileKind kind = kind_of_file(start, path);
  switch (kind.type) {
    case FileKind::Type::kUnknown:
    case FileKind::Type::kText:
    case FileKind::Type::kConfig: return {};
    case FileKind::Type::kTable:
      return invalid(
          "'{0}' {1}, expected a config; write one with data: {{name: table, file: {0}, target: COLUMN}}, or look at "
          "the table by `deepseek data report {0}`",
          path, kind.what);
    case FileKind::Type::kModel:
      return invalid("'{0}' {1}, expected a config; `deepseek predict {0} DATA` uses a model, and {2}", path, kind.what,
                     kHelp);
    case FileKind::Type::kOther: break;
  }
  return invalid("'{}' {}, expected a config; {}; {}", path, kind.what, kind.advice, kHelp);
}

// Nothing but space and comments: what trains by it would be the defaults of everything.
bool says_nothing(std::string_view text) {
  for (const std::string& line : split(text, '\n'))
    if (const size_t at = line.find_first_not_of(" \t\r"); at != std::string::npos && line[at] != '#') return false;
  return true;
}

}  // namespace

Status OptionTable::load_file(const std::string& path, const std::vector<std::string>& overrides) {
  DS_TRY(check_config_file(path));
  const Result<std::string> text = read_text(path);
  if (!text.ok()) return invalid("{}", text.status().message());
  std::vector<std::string> mistakes;
  const auto collect = [&](const Status& s) {
    if (!s.ok()) mistakes.push_back(s.message());
  };
  if (says_nothing(*text))
    return invalid("{}: the config says nothing; name at least data and model, see `deepseek train --help`", path);
  collect(load_yaml(*text, path));
  for (const std::string& o : overrides) collect(set(o, "--set " + o));
  return mistakes.empty() ? Status() : Status(ErrorCode::kInvalidArgument, join(mistakes, "\n"));
}

std::string OptionTable::to_yaml() const {
  std::string out;
  std::vector<std::string> open;  // the groups that the last line stands in
  const auto line = [&](const std::string& group, const std::string& key, const std::string& value) {
    const std::vector<std::string> groups = group.empty() ? std::vector<std::string>() : split(group, '.');
    size_t common = 0;
    while (common < groups.size() && common < open.size() && open[common] == groups[common]) ++common;
    for (size_t i = common; i < groups.size(); ++i) out += std::string(2 * i, ' ') + groups[i] + ":\n";
    out += std::string(2 * groups.size(), ' ') + key + ": " + value + "\n";
    open = groups;
  };
  for (size_t i = 0; i < fields_.size(); ++i) {
    const size_t dot = fields_[i].path.rfind('.');
    const std::string group = dot == std::string::npos ? "" : fields_[i].path.substr(0, dot);
    line(group, fields_[i].path.substr(dot == std::string::npos ? 0 : dot + 1), value_text(fields_[i].target));
    const auto free = free_.find(group);
    const bool last = i + 1 == fields_.size() || !fields_[i + 1].path.starts_with(group + ".");
    if (free == free_.end() || !last) continue;
    for (const auto& [key, value] : *free->second.map) line(group, key_text(key), as_quoted(value));
  }
  return out;
}

std::vector<OptionTable::Record> OptionTable::records() const {
  std::vector<Record> out;
  for (const Field& f : fields_)
    out.push_back({f.path, f.meta.doc, value_text(f.target), deepseek::expected(f.target, f.meta)});
  return out;
}

std::string OptionTable::help() const {
  size_t width = 0;
  for (const Field& f : fields_) width = std::max(width, f.path.size());
  std::string out;
  for (const Record& r : records())
    out += fmt::format("  {:<{}}  {} (default {}; {})\n", r.path, width, r.doc, r.value, r.expected);
  for (const auto& [group, free] : free_) out += fmt::format("  {:<{}}  {}\n", group + ".*", width, free.doc);
  return out;
}

}  // namespace deepseek
