#include "features/define.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "base/strings.h"

namespace deepseek::features {

namespace {

using Json = nlohmann::json;
using Kind = Feature::Kind;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

std::string argument_text(const Parameter& parameter, double value) {
  return parameter.choices.empty() ? fmt::format("{}", value) : parameter.choices[static_cast<size_t>(value)];
}
// ", unit=hours" of arguments that are not the default.
std::string arguments_of(const Use& use) {
  std::string text;
  for (size_t i = 0; i < use.arguments.size(); ++i)
    if (const Parameter& p = use.primitive->parameters[i]; use.arguments[i] != p.value || p.named)
      text += fmt::format(", {}={}", p.name, argument_text(p, use.arguments[i]));
  return text;
}

std::string transform_name(const Use& use, const std::vector<std::string>& inputs) {
  const Primitive& p = *use.primitive;
  if (!p.infix.empty()) {
    if (inputs.size() == 2) return fmt::format("{} {} {}", inputs[0], p.infix, inputs[1]);
    if (use.arguments.empty()) return fmt::format("{}({})", p.infix, inputs[0]);
    const std::string value = argument_text(p.parameters[0], use.arguments[0]);
    if (p.infix.starts_with("value ")) return fmt::format("{} {} {}", value, p.infix.substr(6), inputs[0]);
    return fmt::format("{} {} {}", inputs[0], p.infix, value);
  }
  return fmt::format("{}({}{})", upper(p.name), join(inputs, ", "), arguments_of(use));
}

// The type of what passes a value of its input on. There is one time index and one index only; keys that were computed
// are categories or numbers.
Schema passed_on(Schema schema, bool direct) {
  if (schema.tags & kTimeIndex) {
    if (!direct) schema.tags &= ~static_cast<uint32_t>(kTimeIndex);
  } else if (schema.tags & kIndex) {
    schema.tags &= ~static_cast<uint32_t>(kIndex);
    schema.tags |=
        schema.logical == Logical::kCategorical || schema.logical == Logical::kOrdinal ? kCategory : kNumeric;
  }
  if (!direct) schema.tags &= ~static_cast<uint32_t>(kForeignKey);
  return schema;
}

}  // namespace

Result<Use> parse_use(const std::string& text, bool aggregation) {
  const size_t open = text.find('(');
  DS_ASSIGN(const Primitive* primitive, find_primitive(text.substr(0, open), aggregation));
  Use use{primitive, {}};
  for (const Parameter& p : primitive->parameters) use.arguments.push_back(p.value);
  if (open == std::string::npos) return use;
  if (text.back() != ')') return invalid("'{}': expected ')' at the end", text);
  for (std::string item : split(text.substr(open + 1, text.size() - open - 2), ',')) {
    item = std::string(trim(item));
    const size_t at = item.find('=');
    if (at == std::string::npos) return invalid("'{}': expected name=value, got '{}'", text, item);
    const std::string name(trim(item.substr(0, at))), value(trim(item.substr(at + 1)));
    bool found = false;
    for (size_t i = 0; i < primitive->parameters.size(); ++i) {
      const Parameter& p = primitive->parameters[i];
      if (p.name != name) continue;
      found = true;
      if (p.choices.empty()) {
        const auto number = parse_number(value);
        if (!number || !std::isfinite(*number)) return invalid("'{}': '{}' is no number", text, value);
        use.arguments[i] = *number;
      } else {
        const auto choice = std::find(p.choices.begin(), p.choices.end(), value);
        if (choice == p.choices.end())
          return invalid("'{}': {} is one of {}, got '{}'", text, name, join(p.choices, ", "), value);
        use.arguments[i] = static_cast<double>(choice - p.choices.begin());
      }
    }
    std::vector<std::string> names;
    for (const Parameter& p : primitive->parameters) names.push_back(p.name);
    if (!found)
      return invalid("'{}': {} has no parameter '{}'; it has {}", text, primitive->name, name,
                     names.empty() ? "none" : join(names, ", "));
  }
  return use;
}

std::string use_text(const Use& use) {
  const std::string arguments = arguments_of(use);
  return use.primitive->name + (arguments.empty() ? "" : "(" + arguments.substr(2) + ")");
}

// The algorithm and its limits are Featuretools', so that the same options give the same features.
class Synthesizer {
 public:
  Synthesizer(const Entities& entities, const SynthesisOptions& options) : entities_(entities), options_(options) {}

  Result<Definitions> run() {
    DS_ASSIGN(made_.entity_, entities_.find(options_.target));
    const auto parse = [](const std::vector<std::string>& names, bool aggregation, std::vector<Use>& uses) -> Status {
      for (const std::string& name : names) {
        DS_ASSIGN(Use use, parse_use(name, aggregation));
        uses.push_back(std::move(use));
      }
      return {};
    };
    DS_TRY(parse(options_.aggregations, true, aggregations_));
    DS_TRY(parse(options_.transforms, false, transforms_));
    DS_TRY(parse(options_.group_transforms, false, group_transforms_));
    std::vector<Use> where;
    DS_TRY(parse(options_.where_aggregations, true, where));
    for (const Use& use : where) where_.insert(use.primitive);
    if (options_.depth < 0) return invalid("depth: expected 0 or more, got {}", options_.depth);
    for (const auto& table : options_.ignore_tables) {
      DS_ASSIGN(const int e, entities_.find(table));
      if (e == made_.entity_) return invalid("ignore_tables: '{}' is the table that features are made for", table);
      ignored_.insert(e);
    }
    DS_TRY(check_columns());
    // One table alone: nothing is deeper than its transforms.
    const int64_t depth = entities_.entities().size() == 1 ? std::min<int64_t>(options_.depth, 1) : options_.depth;
    of_.resize(entities_.entities().size());
    visited_.resize(of_.size());
    clauses_.resize(of_.size());
    synthesize(made_.entity_, depth);
    choose();
    if (made_.targets_.empty())
      return invalid("no feature can be made for table '{}'; give more columns, primitives or depth", options_.target);
    drop_unused();
    return std::move(made_);
  }

 private:
  const std::vector<Feature>& all() const { return made_.features_; }
  const Feature& at(int f) const { return all()[static_cast<size_t>(f)]; }
  std::vector<int>& of(int entity) { return of_[static_cast<size_t>(entity)]; }

  Status check_columns() {
    const auto check = [&](const std::string& table, const std::string& column, const char* option) -> Result<int> {
      DS_ASSIGN(const int e, entities_.find(table));
      const auto& fields = entities_.entities()[static_cast<size_t>(e)].fields;
      if (std::none_of(fields.begin(), fields.end(), [&](const auto& f) { return f.name == column; }))
        return invalid("{}: table '{}' has no column '{}'", option, table, column);
      return e;
    };
    for (const auto& [table, columns] : options_.ignore_columns)
      for (const std::string& column : columns) DS_TRY(check(table, column, "ignore_columns").status());
    for (const auto& [key, values] : options_.where) {
      const size_t dot = key.find('.');
      if (dot == std::string::npos) return invalid("where: expected table.column, got '{}'", key);
      DS_TRY(check(key.substr(0, dot), key.substr(dot + 1), "where").status());
    }
    return {};
  }

  int add(Feature feature) {
    std::string key = fmt::format("{}\n{}", feature.entity, feature.name);
    const auto [found, fresh] = by_name_.try_emplace(std::move(key), static_cast<int>(all().size()));
    if (!fresh) return found->second;
    made_.features_.push_back(std::move(feature));
    const int id = found->second;
    of(at(id).entity).push_back(id);
    return id;
  }

  void synthesize(int entity, int64_t depth) {
    if (depth < 0) return;
    visited_[static_cast<size_t>(entity)] = true;
    add_identities(entity);
    const auto& relationships = entities_.relationships();
    for (size_t r = 0; r < relationships.size(); ++r)
      if (relationships[r].parent == entity) visit(relationships[r].child, depth - 1);
    each_descendant(entity, {}, [&](int child, const std::vector<Hop>& path) {
      if (!ignored_.contains(child)) add_aggregations_of(entity, child, path, depth);
    });
    add_transforms(entity, depth, false);
    for (size_t r = 0; r < relationships.size(); ++r)
      if (relationships[r].child == entity) visit(relationships[r].parent, depth - 1);
    for (size_t r = 0; r < relationships.size(); ++r)
      if (relationships[r].child == entity && !ignored_.contains(relationships[r].parent))
        add_directs(entity, static_cast<int>(r), depth);
    add_transforms(entity, depth, true);
    add_clauses(entity);
  }
  void visit(int entity, int64_t depth) {
    if (!visited_[static_cast<size_t>(entity)] && !ignored_.contains(entity)) synthesize(entity, depth);
  }

  void each_descendant(int entity, const std::vector<Hop>& path,
                       const std::function<void(int, const std::vector<Hop>&)>& f) const {
    const auto& relationships = entities_.relationships();
    for (size_t r = 0; r < relationships.size(); ++r) {
      if (relationships[r].parent != entity) continue;
      std::vector<Hop> longer = path;
      longer.push_back({static_cast<int>(r), false});
      f(relationships[r].child, longer);
      each_descendant(relationships[r].child, longer, f);
    }
  }

  void add_identities(int e) {
    const Entities::Entity& entity = entities_.entities()[static_cast<size_t>(e)];
    const auto skip = options_.ignore_columns.find(entity.name);
    for (size_t f = 0; f < entity.fields.size(); ++f) {
      const Entities::Field& field = entity.fields[f];
      if (skip != options_.ignore_columns.end() &&
          std::find(skip->second.begin(), skip->second.end(), field.name) != skip->second.end())
        continue;
      add({.kind = Kind::kIdentity,
           .entity = e,
           .name = field.name,
           .schema = field.schema,
           .missing = kNan,
           .field = static_cast<int>(f)});
    }
  }

  // Features of the table, not deeper than this, that are taken.
  std::vector<int> fitting(int entity, int64_t depth, const std::function<bool(int)>& takes) {
    std::vector<int> found;
    for (const int f : of(entity))
      if (at(f).depth <= depth && takes(f)) found.push_back(f);
    return found;
  }

  bool is_direct(int f) const { return at(f).kind == Kind::kDirect; }
  // What a direct feature passes on in the end.
  const Feature& root(int f) const {
    while (is_direct(f)) f = at(f).inputs[0];
    return at(f);
  }
  bool of_transform(int f) const {
    const Kind kind = root(f).kind;
    return kind == Kind::kTransform || kind == Kind::kGroupTransform || kind == Kind::kEquals;
  }
  bool may_stack(const Primitive& p, const std::vector<int>& inputs) const {
    for (const int f : inputs) {
      const Primitive* base = root(f).use.primitive;
      if (base == nullptr) continue;
      if (base == &p && !p.stacks_on_itself) return false;
      if (p.name == "sum" && base->name == "count") return false;  // that is a count, too
    }
    return true;
  }
  bool key_of_path(const std::vector<Hop>& path, int f) const {
    const Feature& feature = at(f);
    if (feature.kind != Kind::kIdentity) return false;
    return std::any_of(path.begin(), path.end(), [&](const Hop& hop) {
      const auto& r = entities_.relationships()[static_cast<size_t>(hop.relationship)];
      return (feature.entity == r.child && feature.field == r.child_field) ||
             (feature.entity == r.parent && feature.field == entities_.entities()[static_cast<size_t>(r.parent)].index);
    });
  }

  // All lists of features that the primitive takes; with one direct feature at least, if asked for.
  std::vector<std::vector<int>> matches(const Primitive& p, int entity, int64_t depth, bool direct,
                                        const std::function<bool(int)>& takes) {
    std::vector<std::vector<int>> found;
    std::set<std::vector<int>> seen;
    const std::vector<int> candidates = fitting(entity, depth, [&](int f) {
      constexpr uint32_t kNumericKey = kForeignKey | kNumeric;
      return (at(f).schema.tags & kNumericKey) != kNumericKey && takes(f);
    });
    for (const std::vector<Wants>& wants : p.inputs) {
      std::vector<int> inputs;
      const std::function<void()> extend = [&] {
        if (inputs.size() == wants.size()) {
          if (direct && std::none_of(inputs.begin(), inputs.end(), [&](int f) { return is_direct(f); })) return;
          if (direct && same_way(inputs)) return;
          std::vector<int> list = inputs;
          if (p.commutative)
            std::sort(list.begin(), list.end(), [&](int a, int b) { return lower(at(a).name) < lower(at(b).name); });
          if (seen.insert(list).second) found.push_back(list);
          return;
        }
        for (const int f : candidates) {
          const Wants& want = wants[inputs.size()];
          if (!want.takes(at(f).schema) || std::find(inputs.begin(), inputs.end(), f) != inputs.end()) continue;
          if (at(f).name.empty() && (want.tags & kIndex) == 0) continue;  // a row's number
          inputs.push_back(f);
          extend();
          inputs.pop_back();
        }
      };
      extend();
    }
    return found;
  }
  // Whether all come from the same parent, where the feature would be made, too.
  bool same_way(const std::vector<int>& inputs) const {
    return std::all_of(inputs.begin(), inputs.end(),
                       [&](int f) { return is_direct(f) && at(f).path == at(inputs[0]).path; });
  }

  std::vector<std::string> names_of(const std::vector<int>& features) const {
    std::vector<std::string> names;
    for (const int f : features) names.push_back(at(f).name);
    return names;
  }
  int deepest(const std::vector<int>& features) const {
    int depth = 0;
    for (const int f : features) depth = std::max(depth, at(f).depth);
    return depth;
  }
  Schema result_schema(const Primitive& p, const std::vector<int>& inputs) const {
    return p.output ? *p.output : passed_on(at(inputs[0]).schema, false);
  }

  // The child table's name, or the whole way where there are several.
  std::string path_name(int child, int parent, const std::vector<Hop>& path) const {
    int ways = 0;
    const std::function<void(int)> walk = [&](int e) {
      if (e == parent) {
        ++ways;
        return;
      }
      for (const auto& r : entities_.relationships())
        if (r.child == e) walk(r.parent);
    };
    walk(child);
    if (ways == 1) return entities_.entities()[static_cast<size_t>(child)].name;
    std::vector<std::string> names;
    for (const Hop& hop : path) names.push_back(hop_name(hop));
    return join(names, ".");
  }
  std::string hop_name(const Hop& hop) const {
    const auto& r = entities_.relationships()[static_cast<size_t>(hop.relationship)];
    const auto& child = entities_.entities()[static_cast<size_t>(r.child)];
    const std::string& name = hop.forward ? entities_.entities()[static_cast<size_t>(r.parent)].name : child.name;
    const auto same = [&](const auto& o) { return o.child == r.child && o.parent == r.parent; };
    const auto& list = entities_.relationships();
    if (std::count_if(list.begin(), list.end(), same) == 1) return name;
    return fmt::format("{}[{}]", name, child.fields[static_cast<size_t>(r.child_field)].name);
  }

  void add_aggregations_of(int parent, int child, const std::vector<Hop>& path, int64_t depth) {
    for (const Use& use : aggregations_) {
      const Primitive& p = *use.primitive;
      const auto lists = matches(p, child, depth - 1, false, [&](int f) {
        const bool from_parent =
            is_direct(f) && entities_.relationships()[static_cast<size_t>(at(f).path[0].relationship)].parent == parent;
        return !from_parent && !key_of_path(path, f);
      });
      for (const std::vector<int>& inputs : lists) {
        if (!may_stack(p, inputs)) continue;
        add_aggregation(use, parent, child, path, inputs, -1);
        if (!where_.contains(&p) || std::any_of(inputs.begin(), inputs.end(), [&](int f) { return has_where(f); }))
          continue;
        for (const int clause : clauses_[static_cast<size_t>(child)])
          if (std::find(inputs.begin(), inputs.end(), at(clause).inputs[0]) == inputs.end())
            add_aggregation(use, parent, child, path, inputs, clause);
      }
    }
  }
  void add_aggregation(const Use& use, int parent, int child, const std::vector<Hop>& path,
                       const std::vector<int>& inputs, int where) {
    const Primitive& p = *use.primitive;
    std::string of = path_name(child, parent, path);
    if (p.name != "count") of += "." + join(names_of(inputs), ", ");
    const std::string clause = where < 0 ? "" : " WHERE " + at(where).name;
    const std::string name = fmt::format("{}({}{}{})", upper(p.name), of, clause, arguments_of(use));
    const int below = std::max(deepest(inputs), where < 0 ? 0 : at(where).depth);
    add({.kind = Kind::kAggregation,
         .entity = parent,
         .name = name,
         .schema = result_schema(p, inputs),
         .depth = below + 1,
         .missing = p.missing,
         .use = use,
         .inputs = inputs,
         .path = path,
         .where = where});
  }
  bool has_where(int f) const {
    const Feature& feature = at(f);
    return feature.where >= 0 ||
           std::any_of(feature.inputs.begin(), feature.inputs.end(), [&](int i) { return has_where(i); });
  }

  void add_transforms(int entity, int64_t depth, bool direct) {
    const auto takes = [&](int f) { return !of_transform(f); };
    std::vector<Feature> made;
    for (const Use& use : transforms_) {
      for (const std::vector<int>& inputs : matches(*use.primitive, entity, depth - 1, direct, takes)) {
        if (!may_stack(*use.primitive, inputs)) continue;
        made.push_back({.kind = Kind::kTransform,
                        .entity = entity,
                        .name = transform_name(use, names_of(inputs)),
                        .schema = result_schema(*use.primitive, inputs),
                        .depth = deepest(inputs) + 1,
                        .missing = use.primitive->missing,
                        .use = use,
                        .inputs = inputs});
      }
    }
    for (const Use& use : group_transforms_) {
      const std::vector<int> groups =
          fitting(entity, depth - 1, [&](int f) { return (at(f).schema.tags & kForeignKey) != 0; });
      for (const std::vector<int>& inputs : matches(*use.primitive, entity, depth - 1, false, takes)) {
        if (!may_stack(*use.primitive, inputs)) continue;
        for (const int group : groups) {
          if (direct) {
            const bool from_parent =
                is_direct(group) || std::any_of(inputs.begin(), inputs.end(), [&](int f) { return is_direct(f); });
            std::vector<int> both = inputs;
            both.push_back(group);
            if (!from_parent || same_way(both)) continue;
          }
          made.push_back({.kind = Kind::kGroupTransform,
                          .entity = entity,
                          .name = transform_name(use, names_of(inputs)) + " by " + at(group).name,
                          .schema = result_schema(*use.primitive, inputs),
                          .depth = std::max(deepest(inputs), at(group).depth) + 1,
                          .missing = use.primitive->missing,
                          .use = use,
                          .inputs = inputs,
                          .group = group});
        }
      }
    }
    for (Feature& feature : made) add(std::move(feature));
  }

  void add_directs(int child, int relationship, int64_t depth) {
    const Hop hop{relationship, true};
    const int parent = entities_.relationships()[static_cast<size_t>(relationship)].parent;
    if (!visited_[static_cast<size_t>(parent)]) return;
    for (const int f : fitting(parent, depth, [&](int f) { return !at(f).name.empty() && !key_of_path({hop}, f); })) {
      add({.kind = Kind::kDirect,
           .entity = child,
           .name = hop_name(hop) + "." + at(f).name,
           .schema = passed_on(at(f).schema, true),
           .depth = at(f).depth + 1,
           .missing = at(f).missing,
           .inputs = {f},
           .path = {hop}});
    }
  }

  // Conditions that later aggregations of this table may have.
  void add_clauses(int entity) {
    for (const int f : std::vector<int>(of(entity))) {
      const int base = is_direct(f) ? at(f).inputs[0] : f;
      if (at(base).kind != Kind::kIdentity) continue;
      const std::string key = entities_.entities()[static_cast<size_t>(at(base).entity)].name + "." + at(base).name;
      const auto values = options_.where.find(key);
      if (values == options_.where.end()) continue;
      for (const std::string& value : values->second) {
        // Not among the table's features: a clause is nobody's input.
        made_.features_.push_back({.kind = Kind::kEquals,
                                   .entity = entity,
                                   .name = at(f).name + " = " + value,
                                   .schema = kMaybe,
                                   .depth = at(f).depth + 1,
                                   .missing = kNan,
                                   .inputs = {f},
                                   .value = value});
        clauses_[static_cast<size_t>(entity)].push_back(static_cast<int>(all().size()) - 1);
      }
    }
  }

  void choose() {
    for (const int f : of(made_.entity_)) {
      const Feature& feature = at(f);
      const bool index = feature.kind == Kind::kIdentity &&
                         feature.field == entities_.entities()[static_cast<size_t>(made_.entity_)].index;
      const Schema& s = feature.schema;
      const bool usual = (s.tags & (kNumeric | kCategory)) != 0 || s.logical == Logical::kBoolean ||
                         s.logical == Logical::kBooleanNullable;
      if (!index && (usual || options_.all_types)) made_.targets_.push_back(f);
    }
    std::stable_sort(made_.targets_.begin(), made_.targets_.end(),
                     [&](int a, int b) { return at(a).depth < at(b).depth; });
    if (options_.max_features > 0 && static_cast<int64_t>(made_.targets_.size()) > options_.max_features)
      made_.targets_.resize(static_cast<size_t>(options_.max_features));
  }

  // Leaves what the targets are made of.
  void drop_unused() {
    std::vector<uint8_t> used(all().size());
    const std::function<void(int)> mark = [&](int f) {
      if (f < 0 || used[static_cast<size_t>(f)]) return;
      used[static_cast<size_t>(f)] = 1;
      for (const int i : at(f).inputs) mark(i);
      mark(at(f).where);
      mark(at(f).group);
    };
    for (const int f : made_.targets_) mark(f);
    std::vector<int> place(all().size(), -1);
    std::vector<Feature> kept;
    for (size_t f = 0; f < all().size(); ++f) {
      if (!used[f]) continue;
      place[f] = static_cast<int>(kept.size());
      kept.push_back(std::move(made_.features_[f]));
    }
    const auto move = [&](int& f) {
      if (f >= 0) f = place[static_cast<size_t>(f)];
    };
    for (Feature& feature : kept) {
      for (int& i : feature.inputs) move(i);
      move(feature.where);
      move(feature.group);
    }
    for (int& f : made_.targets_) move(f);
    made_.features_ = std::move(kept);
  }

  const Entities& entities_;
  const SynthesisOptions& options_;
  Definitions made_;
  std::vector<Use> aggregations_, transforms_, group_transforms_;
  std::set<const Primitive*> where_;
  std::set<int> ignored_;
  std::vector<std::vector<int>> of_, clauses_;  // by entity
  std::vector<bool> visited_;
  std::map<std::string, int> by_name_;
};

Result<Definitions> Definitions::make(const Entities& entities, const SynthesisOptions& options) {
  return Synthesizer(entities, options).run();
}

}  // namespace deepseek::features
