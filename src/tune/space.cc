#include "tune/space.h"

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>
#include <set>

#include "base/json.h"
#include "base/random.h"
#include "base/strings.h"

namespace deepseek::tune {
namespace {

using Json = nlohmann::ordered_json;

// Of a long range no grid takes every value.
constexpr double kShort = 32;

// Whole multiples within the range; a hair more, so that 0.1 + 2 * 0.1 <= 0.3.
double steps_of(const Parameter& p) { return std::floor((p.high - p.low) / p.step * (1 + 1e-12) + 1e-9); }

// low + k steps, k moved into the range; 0.1 + 2 * 0.1 is a hair above 0.3.
double stepped(const Parameter& p, double k) {
  return std::min(p.low + std::clamp(k, 0.0, steps_of(p)) * p.step, p.high);
}

double edge(const Parameter& p, double value) { return p.log ? std::log(value) : value; }

// Half a step beyond both ends, so that the first and the last value get as much room as the others.
std::pair<double, double> edges(const Parameter& p) {
  if (p.step == 0) return {edge(p, p.low), edge(p, p.high)};
  const double last = p.low + steps_of(p) * p.step;
  if (!p.log) return {p.low - p.step / 2, last + p.step / 2};
  return {std::log(p.low) - 0.5 * std::log((p.low + p.step) / p.low), std::log(last + p.step / 2)};
}

Status read_number(const Json& spec, const char* key, const std::string& name, double& value) {
  const auto it = spec.find(key);
  if (it == spec.end()) return invalid("parameter '{}': expected '{}', a number", name, key);
  if (!it->is_number()) return invalid("parameter '{}': {}: expected a number, got {}", name, key, it->dump());
  value = it->get<double>();
  if (!std::isfinite(value))
    return invalid("parameter '{}': {}: expected a finite number, got {}", name, key, it->dump());
  return {};
}

Status read_flag(const Json& spec, const char* key, const std::string& name, bool& value) {
  const auto it = spec.find(key);
  if (it == spec.end()) return {};
  if (!it->is_boolean()) return invalid("parameter '{}': {}: expected true or false, got {}", name, key, it->dump());
  value = it->get<bool>();
  return {};
}

Status read_choices(const Json& list, Parameter& p) {
  if (!list.is_array() || list.empty())
    return invalid("parameter '{}': expected a list of at least one choice, got {}", p.name, dump_json(list));
  p.kind = Kind::kChoice;
  std::set<std::string> seen;
  bool rises = true;
  for (size_t i = 0; i < list.size(); ++i) {
    p.choices.push_back(dump_json(list[i]));
    if (!seen.insert(p.choices.back()).second)
      return invalid("parameter '{}': {} is there twice", p.name, p.choices.back());
    rises = rises && list[i].is_number() && (i == 0 || list[i].get<double>() > list[i - 1].get<double>());
  }
  p.ordered = rises && list.size() > 1;
  p.low = 0, p.high = static_cast<double>(list.size() - 1), p.step = 1;
  return {};
}

Status read_range(const Json& spec, Parameter& p) {
  DS_TRY(read_number(spec, "low", p.name, p.low));
  DS_TRY(read_number(spec, "high", p.name, p.high));
  if (p.low > p.high) return invalid("parameter '{}': expected low <= high, got {} and {}", p.name, p.low, p.high);
  const bool whole = spec["low"].is_number_integer() && spec["high"].is_number_integer();
  p.kind = spec.contains("type") ? (spec["type"] == "int" ? Kind::kInt : Kind::kFloat)
           : whole               ? Kind::kInt
                                 : Kind::kFloat;
  p.step = p.kind == Kind::kInt ? 1 : 0;
  if (spec.contains("step") && !spec["step"].is_null()) {
    DS_TRY(read_number(spec, "step", p.name, p.step));
    if (p.step <= 0) return invalid("parameter '{}': step: expected more than 0, got {}", p.name, p.step);
  }
  if (p.kind == Kind::kInt)
    for (const double v : {p.low, p.high, p.step})
      if (v != std::floor(v) || std::abs(v) > 9e15)
        return invalid("parameter '{}': expected whole numbers below 9e15 for an int, got {}", p.name, v);
  p.log = p.low > 0 && p.high >= 100 * p.low && !spec.contains("step");
  DS_TRY(read_flag(spec, "log", p.name, p.log));
  if (p.log && p.low <= 0)
    return invalid("parameter '{}': a logarithmic range must start above 0, got low {}", p.name, p.low);
  return {};
}

// One value or several, as positions of the parent's choices or as its ints.
Status read_condition(const Json& when, const std::vector<Parameter>& before, Parameter& p) {
  if (!when.is_object() || when.size() != 1)
    return invalid("parameter '{}': when: expected one earlier parameter and its values, got {}", p.name,
                   dump_json(when));
  const std::string parent = when.begin().key();
  std::vector<std::string> names;
  for (const Parameter& b : before) names.push_back(b.name);
  const auto it = std::find(names.begin(), names.end(), parent);
  if (it == names.end())
    return invalid("parameter '{}': when: '{}' is no earlier parameter{}", p.name, parent, did_you_mean(parent, names));
  Condition condition{static_cast<size_t>(it - names.begin()), {}};
  const Parameter& of = before[condition.parent];
  if (of.kind == Kind::kFloat)
    return invalid("parameter '{}': when: '{}' is a float; expected a choice or an int", p.name, parent);
  const Json& given = when.begin().value();
  const bool one = !given.is_array() || (of.kind == Kind::kChoice && std::find(of.choices.begin(), of.choices.end(),
                                                                               dump_json(given)) != of.choices.end());
  for (const Json& value : one ? Json::array({given}) : given) {
    if (of.kind == Kind::kChoice) {
      const auto at = std::find(of.choices.begin(), of.choices.end(), dump_json(value));
      if (at == of.choices.end())
        return invalid("parameter '{}': when: '{}' never is {}; it is one of {}", p.name, parent, dump_json(value),
                       join(of.choices, ", "));
      condition.values.push_back(static_cast<double>(at - of.choices.begin()));
    } else {
      if (!value.is_number_integer() || value.get<double>() < of.low || value.get<double>() > of.high)
        return invalid("parameter '{}': when: '{}' never is {}; it is from {} to {}", p.name, parent, dump_json(value),
                       of.low, of.high);
      condition.values.push_back(value.get<double>());
    }
  }
  if (condition.values.empty())
    return invalid("parameter '{}': when: expected at least one value of '{}'", p.name, parent);
  p.when = std::move(condition);
  return {};
}

Result<Parameter> read_parameter(const std::string& name, const Json& spec, const std::vector<Parameter>& before) {
  Parameter p;
  p.name = name;
  if (spec.is_array()) {
    DS_TRY(read_choices(spec, p));
    return p;
  }
  if (!spec.is_object()) {
    DS_TRY(read_choices(Json::array({spec}), p));
    return p;
  }
  static const std::vector<std::string> kKeys = {"type", "low", "high", "step", "log", "choices", "ordered", "when"};
  for (const auto& item : spec.items())
    if (std::find(kKeys.begin(), kKeys.end(), item.key()) == kKeys.end())
      return invalid("parameter '{}': unknown key '{}'{}; known: {}", name, item.key(), did_you_mean(item.key(), kKeys),
                     join(kKeys, ", "));
  const std::string type = spec.contains("type") && spec["type"].is_string() ? spec["type"].get<std::string>()
                           : spec.contains("choices")                        ? "choice"
                                                                             : "";
  if (spec.contains("type") && type != "float" && type != "int" && type != "choice")
    return invalid("parameter '{}': type: expected float, int or choice, got {}", name, dump_json(spec["type"]));
  if (type == "choice") {
    if (!spec.contains("choices")) return invalid("parameter '{}': expected 'choices', a list", name);
    DS_TRY(read_choices(spec["choices"], p));
    DS_TRY(read_flag(spec, "ordered", name, p.ordered));
  } else {
    DS_TRY(read_range(spec, p));
  }
  if (spec.contains("when") && !spec["when"].is_null()) DS_TRY(read_condition(spec["when"], before, p));
  return p;
}

}  // namespace

double Parameter::cardinality() const {
  if (kind == Kind::kChoice) return static_cast<double>(choices.size());
  if (low == high) return 1;
  return step == 0 ? std::numeric_limits<double>::infinity() : steps_of(*this) + 1;
}

double Parameter::to_unit(double value) const {
  if (kind == Kind::kChoice) return (value + 0.5) / static_cast<double>(choices.size());
  if (low == high) return 0.5;
  const auto [from, to] = edges(*this);
  return std::clamp((edge(*this, value) - from) / (to - from), 0.0, 1.0);
}

double Parameter::from_unit(double unit) const {
  unit = std::clamp(unit, 0.0, 1.0);
  if (kind == Kind::kChoice)
    return std::min(std::floor(unit * static_cast<double>(choices.size())), static_cast<double>(choices.size() - 1));
  if (low == high) return low;
  const auto [from, to] = edges(*this);
  double value = from + unit * (to - from);
  if (log) value = std::exp(value);
  if (step != 0) return stepped(*this, std::round((value - low) / step));
  return std::clamp(value, low, high);
}

double Parameter::level(int64_t k, int64_t levels) const {
  if (cardinality() <= static_cast<double>(levels) && step != 0) return stepped(*this, static_cast<double>(k));
  const double share = levels > 1 ? static_cast<double>(k) / static_cast<double>(levels - 1) : 0.5;
  const double value = log ? std::exp(std::log(low) + share * std::log(high / low)) : low + share * (high - low);
  return step == 0 ? std::clamp(value, low, high) : stepped(*this, std::round((value - low) / step));
}

std::string Parameter::text(double value) const {
  if (kind == Kind::kChoice) return choices[static_cast<size_t>(value)];
  if (kind == Kind::kInt) return fmt::format("{}", static_cast<int64_t>(value));
  return dump_json(Json(value));
}

Space::Space(std::vector<Parameter> parameters) : parameters_(std::move(parameters)) {}

Result<Space> Space::parse(std::string_view text) {
  const Json json = parse_json<Json>(text, false);
  if (json.is_discarded() || !json.is_object())
    return invalid("space: expected an object of parameters, got {}", std::string(text.substr(0, 100)));
  if (json.empty()) return invalid("space: expected at least one parameter");
  std::vector<Parameter> parameters;
  for (const auto& item : json.items()) {
    DS_ASSIGN(Parameter p, read_parameter(item.key(), item.value(), parameters));
    parameters.push_back(std::move(p));
  }
  return Space(std::move(parameters));
}

std::string Space::to_json() const {
  Json json = Json::object();
  for (const Parameter& p : parameters_) {
    Json spec;
    if (p.kind == Kind::kChoice) {
      spec["type"] = "choice";
      for (const std::string& c : p.choices) spec["choices"].push_back(parse_json<Json>(c));
      spec["ordered"] = p.ordered;
    } else {
      const auto number = [&](double v) { return p.kind == Kind::kInt ? Json(static_cast<int64_t>(v)) : Json(v); };
      spec["type"] = p.kind == Kind::kInt ? "int" : "float";
      spec["low"] = number(p.low);
      spec["high"] = number(p.high);
      if (p.step != (p.kind == Kind::kInt ? 1 : 0)) spec["step"] = number(p.step);
      spec["log"] = p.log;
    }
    if (p.when) {
      const Parameter& parent = parameters_[p.when->parent];
      for (const double v : p.when->values) spec["when"][parent.name].push_back(parse_json<Json>(parent.text(v)));
    }
    json[p.name] = std::move(spec);
  }
  return dump_json(json);
}

std::optional<size_t> Space::find(std::string_view name) const {
  for (size_t i = 0; i < size(); ++i)
    if (parameters_[i].name == name) return i;
  return std::nullopt;
}

bool Space::active(const Point& point, size_t i) const {
  const auto& when = parameters_[i].when;
  if (!when) return true;
  // A parent that isn't active is NaN, which equals nothing.
  return std::find(when->values.begin(), when->values.end(), point[when->parent]) != when->values.end();
}

Point Space::repaired(Point point) const {
  point.resize(size(), std::numeric_limits<double>::quiet_NaN());
  for (size_t i = 0; i < size(); ++i) {
    const Parameter& p = parameters_[i];
    if (!active(point, i)) {
      point[i] = std::numeric_limits<double>::quiet_NaN();
    } else if (std::isnan(point[i])) {
      point[i] = p.from_unit(0.5);
    } else {
      point[i] = std::clamp(point[i], p.low, p.high);
      if (p.step != 0) point[i] = stepped(p, std::round((point[i] - p.low) / p.step));
    }
  }
  return point;
}

Status Space::check(const Point& point) const {
  if (point.size() != size()) return internal_error("point: expected {} values, got {}", size(), point.size());
  for (size_t i = 0; i < size(); ++i) {
    const Parameter& p = parameters_[i];
    if (!active(point, i)) {
      if (!std::isnan(point[i])) return invalid("parameter '{}': not active here, but {}", p.name, point[i]);
      continue;
    }
    if (!(point[i] >= p.low && point[i] <= p.high))
      return invalid("parameter '{}': expected a value from {} to {}, got {}", p.name, p.low, p.high, point[i]);
    if (p.step == 0) continue;
    const double steps = (point[i] - p.low) / p.step;
    if (std::abs(steps - std::round(steps)) > 1e-6)
      return invalid("parameter '{}': expected {} and multiples of {} more, got {}", p.name, p.low, p.step, point[i]);
  }
  return {};
}

Point Space::from_unit(const std::vector<double>& unit) const {
  Point point(size(), std::numeric_limits<double>::quiet_NaN());
  for (size_t i = 0; i < size(); ++i)
    if (active(point, i)) point[i] = parameters_[i].from_unit(unit[i]);
  return point;
}

std::vector<double> Space::to_unit(const Point& point) const {
  std::vector<double> unit(size(), 0.5);
  for (size_t i = 0; i < size(); ++i)
    if (!std::isnan(point[i])) unit[i] = parameters_[i].to_unit(point[i]);
  return unit;
}

std::string Space::text(const Point& point) const {
  std::vector<std::string> parts;
  for (size_t i = 0; i < size(); ++i)
    if (!std::isnan(point[i]))
      parts.push_back(fmt::format("{}: {}", dump_json(Json(parameters_[i].name)), parameters_[i].text(point[i])));
  return "{" + join(parts, ", ") + "}";
}

Result<Point> Space::parse_point(std::string_view text) const {
  const Json json = parse_json<Json>(text, false);
  if (json.is_discarded() || !json.is_object())
    return invalid("point: expected an object of parameters, got {}", std::string(text.substr(0, 100)));
  std::vector<std::string> names;
  for (const Parameter& p : parameters_) names.push_back(p.name);
  Point point(size(), std::numeric_limits<double>::quiet_NaN());
  for (const auto& item : json.items()) {
    const auto at = find(item.key());
    if (!at) return invalid("point: unknown parameter '{}'{}", item.key(), did_you_mean(item.key(), names));
    const Parameter& p = parameters_[*at];
    if (p.kind == Kind::kChoice) {
      const auto it = std::find(p.choices.begin(), p.choices.end(), dump_json(item.value()));
      if (it == p.choices.end())
        return invalid("parameter '{}': {} is none of {}", p.name, dump_json(item.value()), join(p.choices, ", "));
      point[*at] = static_cast<double>(it - p.choices.begin());
    } else if (item.value().is_number()) {
      point[*at] = item.value().get<double>();
    } else {
      return invalid("parameter '{}': expected a number, got {}", p.name, dump_json(item.value()));
    }
  }
  for (size_t i = 0; i < size(); ++i) {
    if (!active(point, i)) point[i] = std::numeric_limits<double>::quiet_NaN();
    if (active(point, i) && std::isnan(point[i])) return invalid("point: parameter '{}' is missing", names[i]);
  }
  DS_TRY(check(point));
  return point;
}

double Space::cardinality() const {
  // Parents before children: from the last to the first, each value of a parameter times what depends on it. Where
  // conditions nest or share a parent the count is of the combinations of its values.
  std::vector<std::vector<size_t>> children(size());
  std::vector<size_t> roots;
  for (size_t i = 0; i < size(); ++i)
    (parameters_[i].when ? children[parameters_[i].when->parent] : roots).push_back(i);
  const std::function<double(size_t)> count = [&](size_t i) {
    const Parameter& p = parameters_[i];
    const double n = p.cardinality();
    if (children[i].empty() || std::isinf(n)) return n;
    // Only the values that a condition names differ from the others.
    std::set<double> named;
    for (const size_t c : children[i])
      named.insert(parameters_[c].when->values.begin(), parameters_[c].when->values.end());
    double total = n - static_cast<double>(named.size());
    for (const double v : named) {
      double product = 1;
      for (const size_t c : children[i]) {
        const auto& values = parameters_[c].when->values;
        if (std::find(values.begin(), values.end(), v) != values.end()) product *= count(c);
      }
      total += product;
    }
    return total;
  };
  double total = 1;
  for (const size_t i : roots) total *= count(i);
  return total;
}

std::vector<Point> Space::grid(int64_t levels, size_t limit) const {
  std::vector<Point> points;
  Point point(size(), std::numeric_limits<double>::quiet_NaN());
  const std::function<void(size_t)> fill = [&](size_t i) {
    if (points.size() >= limit) return;
    if (i == size()) return points.push_back(point);
    if (!active(point, i)) {
      point[i] = std::numeric_limits<double>::quiet_NaN();
      return fill(i + 1);
    }
    const Parameter& p = parameters_[i];
    const double n = p.cardinality();
    const bool every =
        p.kind == Kind::kChoice || n <= std::max(static_cast<double>(levels), p.step != 0 ? kShort : 1) || n == 1;
    const int64_t here = every ? static_cast<int64_t>(n) : levels;
    double last = std::numeric_limits<double>::quiet_NaN();
    for (int64_t k = 0; k < here && points.size() < limit; ++k) {
      point[i] = p.level(k, here);
      if (point[i] == last) continue;  // levels of a logarithm that round to the same int
      last = point[i];
      fill(i + 1);
    }
    point[i] = std::numeric_limits<double>::quiet_NaN();
  };
  fill(0);
  return points;
}

size_t PointHash::operator()(const Point& point) const {
  uint64_t hash = point.size();
  for (const double v : point) hash = splitmix64(hash ^ std::bit_cast<uint64_t>(std::isnan(v) ? 0.0 : v + 1));
  return hash;
}

bool PointEqual::operator()(const Point& a, const Point& b) const {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](double x, double y) { return x == y || (std::isnan(x) && std::isnan(y)); });
}

}  // namespace deepseek::tune
