// Options by reflection: a struct describes its fields once, and YAML keys, `--set` overrides, help texts and the
// resolved config come from that description. All mistakes of a file are collected, each with file:line:column.
// Test: tests/base/options_test.cc
#pragma once

#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/status.h"

namespace deepseek {

struct OptionMeta {
  std::string doc;
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  std::vector<std::string> choices = {};
};

// A map or list of a config, as JSON.
struct JsonValue {
  std::string text = "{}";
};

class OptionTable {
 public:
  // An optional number is "auto" where it has no value.
  using Target = std::variant<bool*, int64_t*, double*, std::string*, std::vector<std::string>*, JsonValue*,
                              std::optional<double>*>;
  using FreeMap = std::map<std::string, std::string>;

  template <class T>
  void field(const std::string& name, T& value, OptionMeta meta) {
    fields_.push_back({prefix_ + name, &value, std::move(meta)});
  }
  // The keys of a nested struct, which has a describe(OptionTable&) of its own.
  template <class T>
  void group(const std::string& name, T& options, std::string doc) {
    groups_[prefix_ + name] = std::move(doc);
    const std::string outer = prefix_;
    prefix_ += name + ".";
    options.describe(*this);
    prefix_ = outer;
  }
  // Keys of the current group that are no fields go here as text (a model's own parameters): a list as "a,b", what is
  // nested as JSON.
  void rest(FreeMap& map, std::string doc) { free_[prefix_.substr(0, prefix_.size() - 1)] = {&map, std::move(doc)}; }

  // `where` names the text in messages. Nothing is changed by a text with mistakes in its syntax; otherwise good keys
  // are taken and the error lists all bad ones, a line each.
  Status load_yaml(std::string_view text, std::string_view where);
  // "train.epochs=3"; the value is YAML.
  Status set(std::string_view assignment, std::string_view where);
  // The file, then the assignments of --set; mistakes of both are told together.
  Status load_file(const std::string& path, const std::vector<std::string>& overrides);
  // A key of files that another program reads.
  void ignore(std::string path) { ignored_.insert(std::move(path)); }
  // All values, defaults included, as YAML that load_yaml reads back.
  std::string to_yaml() const;
  // A line per key: name, type, default (the current value), range or choices, what it is.
  std::string help() const;

  // What help() says, for bindings and generated documents.
  struct Record {
    std::string path, doc, value, expected;
  };
  std::vector<Record> records() const;

 private:
  struct Field {
    std::string path;
    Target target;
    OptionMeta meta;
  };
  struct Free {
    FreeMap* map;
    std::string doc;
  };
  friend class OptionReader;
  std::vector<Field> fields_;
  std::map<std::string, std::string> groups_;
  std::set<std::string> ignored_;
  std::map<std::string, Free> free_;
  std::string prefix_;
};

}  // namespace deepseek
