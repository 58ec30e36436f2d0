// Definitions of features in files. What comes in may be damaged, or of other tables, so everything is checked.
#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "features/define.h"

namespace deepseek::features {

namespace {

using Json = nlohmann::json;
using Kind = Feature::Kind;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

constexpr const char* kKinds[] = {"identity", "direct", "aggregation", "transform", "group_transform", "equals"};

const std::string& field_name(const Entities& entities, int entity, int field) {
  return entities.entities()[static_cast<size_t>(entity)].fields[static_cast<size_t>(field)].name;
}
// Whether values of one are taken where the other was: missing ones may come and go.
bool same_family(Logical a, Logical b) {
  const auto family = [](Logical l) {
    if (l == Logical::kIntegerNullable || l == Logical::kDouble) return Logical::kInteger;
    return l == Logical::kBooleanNullable ? Logical::kBoolean : l;
  };
  return family(a) == family(b);
}

}  // namespace

Json Definitions::to_json(const Entities& entities) const {
  Json list = Json::array();
  for (const Feature& f : features_) {
    Json j = {{"kind", kKinds[static_cast<size_t>(f.kind)]},
              {"table", entities.entities()[static_cast<size_t>(f.entity)].name},
              {"name", f.name},
              {"type", static_cast<int>(f.schema.logical)},
              {"tags", f.schema.tags},
              {"depth", f.depth}};
    if (!std::isnan(f.missing)) j["missing"] = f.missing;
    if (f.use.primitive) j["primitive"] = use_text(f.use);
    if (!f.inputs.empty()) j["inputs"] = f.inputs;
    if (f.where >= 0) j["where"] = f.where;
    if (f.group >= 0) j["group"] = f.group;
    if (f.kind == Kind::kEquals) j["value"] = f.value;
    for (const Hop& hop : f.path) {
      const auto& r = entities.relationships()[static_cast<size_t>(hop.relationship)];
      j["path"].push_back({entities.entities()[static_cast<size_t>(r.child)].name,
                           field_name(entities, r.child, r.child_field), hop.forward});
    }
    list.push_back(std::move(j));
  }
  return {{"table", entities.entities()[static_cast<size_t>(entity_)].name}, {"features", list}, {"chosen", targets_}};
}

Result<Definitions> Definitions::from_json(const Json& json, const Entities& entities) {
  try {
    return read_json(json, entities);
  } catch (const Json::exception& e) {  // a key that is missing, or holds something else
    return make_error(ErrorCode::kDataCorrupt, "definitions of features are damaged: {}", e.what());
  }
}

Result<Definitions> Definitions::read_json(const Json& json, const Entities& entities) {
  Definitions made;
  DS_ASSIGN(made.entity_, entities.find(json.at("table").get<std::string>()));
  const Json& list = json.at("features");
  const auto earlier = [&](int f) {
    return f >= 0 && f < static_cast<int>(made.features_.size())
               ? Status()
               : make_error(ErrorCode::kDataCorrupt, "feature {} is not among those before it", f);
  };
  for (const Json& j : list) {
    Feature f;
    const auto kind = std::find(std::begin(kKinds), std::end(kKinds), j.at("kind").get<std::string>());
    if (kind == std::end(kKinds))
      return make_error(ErrorCode::kDataCorrupt, "unknown kind {}", dump_json(j.at("kind")));
    f.kind = static_cast<Kind>(kind - std::begin(kKinds));
    DS_ASSIGN(f.entity, entities.find(j.at("table").get<std::string>()));
    f.name = j.at("name").get<std::string>();
    const int type = j.at("type").get<int>();
    if (type < 0 || type > static_cast<int>(Logical::kText))
      return make_error(ErrorCode::kDataCorrupt, "unknown type {}", type);
    f.schema = {static_cast<Logical>(type), j.at("tags").get<uint32_t>()};
    f.depth = j.at("depth").get<int>();
    f.missing = j.contains("missing") ? j.at("missing").get<double>() : kNan;
    if (j.contains("inputs")) f.inputs = j.at("inputs").get<std::vector<int>>();
    if (j.contains("where")) f.where = j.at("where").get<int>();
    if (j.contains("group")) f.group = j.at("group").get<int>();
    if (j.contains("value")) f.value = j.at("value").get<std::string>();
    for (const int i : f.inputs) DS_TRY(earlier(i));
    if (f.where >= 0) DS_TRY(earlier(f.where));
    if (f.group >= 0) DS_TRY(earlier(f.group));
    if (j.contains("primitive")) {
      DS_ASSIGN(f.use, parse_use(j.at("primitive").get<std::string>(), f.kind == Kind::kAggregation));
    }
    size_t inputs = f.kind == Kind::kIdentity ? 0 : 1;
    if (f.kind == Kind::kAggregation || f.kind == Kind::kTransform || f.kind == Kind::kGroupTransform) {
      if (!f.use.primitive) return make_error(ErrorCode::kDataCorrupt, "'{}' has no primitive", f.name);
      inputs = f.use.primitive->inputs[0].size();
    }
    if (f.inputs.size() != inputs)
      return make_error(ErrorCode::kDataCorrupt, "'{}' has {} inputs, expected {}", f.name, f.inputs.size(), inputs);
    if (f.kind == Kind::kGroupTransform && f.group < 0)
      return make_error(ErrorCode::kDataCorrupt, "'{}' has no group", f.name);
    if (f.kind == Kind::kIdentity) {
      const auto& entity = entities.entities()[static_cast<size_t>(f.entity)];
      for (size_t c = 0; c < entity.fields.size(); ++c)
        if (entity.fields[c].name == f.name) f.field = static_cast<int>(c);
      if (f.field < 0)
        return invalid("table '{}' has no column '{}', of which features were made", entity.name, f.name);
      const Schema& now = entity.fields[static_cast<size_t>(f.field)].schema;
      if (!same_family(now.logical, f.schema.logical))
        return invalid("table '{}': column '{}' is {}, but features were made of {}", entity.name, f.name,
                       name_of(now.logical), name_of(f.schema.logical));
    }
    int at = f.entity;
    if (j.contains("path"))
      for (const Json& step : j.at("path")) {
        DS_ASSIGN(const int child, entities.find(step.at(0).get<std::string>()));
        const std::string column = step.at(1).get<std::string>();
        Hop hop{-1, step.at(2).get<bool>()};
        for (size_t r = 0; r < entities.relationships().size(); ++r) {
          const auto& relationship = entities.relationships()[r];
          if (relationship.child == child && field_name(entities, child, relationship.child_field) == column)
            hop.relationship = static_cast<int>(r);
        }
        if (hop.relationship < 0)
          return invalid("'{}.{}' refers to no table here, as it did where features were made",
                         step.at(0).get<std::string>(), column);
        const auto& r = entities.relationships()[static_cast<size_t>(hop.relationship)];
        if (at != (hop.forward ? r.child : r.parent))
          return make_error(ErrorCode::kDataCorrupt, "the path of '{}' has a gap", f.name);
        at = hop.forward ? r.parent : r.child;
        f.path.push_back(hop);
      }
    if ((f.kind == Kind::kDirect && (f.path.size() != 1 || !f.path[0].forward)) ||
        (f.kind == Kind::kAggregation &&
         (f.path.empty() || std::any_of(f.path.begin(), f.path.end(), [](const Hop& h) { return h.forward; }))))
      return make_error(ErrorCode::kDataCorrupt, "the path of '{}' is none of its kind", f.name);
    std::vector<int> sources = f.inputs;
    if (f.where >= 0) sources.push_back(f.where);
    if (f.group >= 0) sources.push_back(f.group);
    for (const int i : sources)
      if (made.features_[static_cast<size_t>(i)].entity != at)
        return make_error(ErrorCode::kDataCorrupt, "'{}' is made of features of another table", f.name);
    made.features_.push_back(std::move(f));
  }
  for (const Json& f : json.at("chosen")) {
    DS_TRY(earlier(f.get<int>()));
    made.targets_.push_back(f.get<int>());
    if (made.features_[static_cast<size_t>(made.targets_.back())].entity != made.entity_)
      return make_error(ErrorCode::kDataCorrupt, "feature {} is of another table", f.get<int>());
  }
  return made;
}

}  // namespace deepseek::features
