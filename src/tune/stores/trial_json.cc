#include "tune/stores/trial_json.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace deepseek::tune {
namespace {

using Json = nlohmann::json;

void append(std::string& text, double value) {
  if (std::isnan(value)) {
    text += "\"nan\"";
  } else if (std::isinf(value)) {
    text += value > 0 ? "\"inf\"" : "\"-inf\"";
  } else if (value == 0 && std::signbit(value)) {
    text += "-0.0";  // -0 would be read as an int
  } else {
    text += fmt::format("{}", value);
  }
}

bool read(const Json& json, double& value) {
  if (json.is_number()) {
    value = json.get<double>();
  } else if (json == "nan") {
    value = std::numeric_limits<double>::quiet_NaN();
  } else if (json == "inf" || json == "-inf") {
    value = json == "inf" ? std::numeric_limits<double>::infinity() : -std::numeric_limits<double>::infinity();
  } else {
    return false;
  }
  return true;
}

Status wrong(const char* expected, std::string_view text) {
  return make_error(ErrorCode::kDataCorrupt, "expected {}, got '{}'", expected, std::string(text.substr(0, 100)));
}

}  // namespace

std::string numbers_text(const std::vector<double>& numbers) {
  std::string text = "[";
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (i > 0) text += ", ";
    append(text, numbers[i]);
  }
  return text + "]";
}

Result<std::vector<double>> parse_numbers(std::string_view text) {
  std::vector<double> numbers;
  if (text == "[]") return numbers;
  const Json json = parse_json<Json>(text, false);
  if (!json.is_array()) return wrong("a JSON list of numbers", text);
  numbers.resize(json.size());
  for (size_t i = 0; i < json.size(); ++i)
    if (!read(json[i], numbers[i])) return wrong("a JSON list of numbers", text);
  return numbers;
}

std::string reports_text(const std::vector<Report>& reports) {
  std::string text = "[";
  for (size_t i = 0; i < reports.size(); ++i) {
    text += fmt::format("{}[{}, ", i > 0 ? ", " : "", reports[i].step);
    append(text, reports[i].value);
    text += "]";
  }
  return text + "]";
}

Result<std::vector<Report>> parse_reports(std::string_view text) {
  constexpr const char* kExpected = "a JSON list of pairs of a step and a value";
  std::vector<Report> reports;
  if (text == "[]") return reports;
  const Json json = parse_json<Json>(text, false);
  if (!json.is_array()) return wrong(kExpected, text);
  reports.resize(json.size());
  for (size_t i = 0; i < json.size(); ++i) {
    const Json& pair = json[i];
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_number_integer() || !read(pair[1], reports[i].value))
      return wrong(kExpected, text);
    reports[i].step = pair[0].get<int64_t>();
  }
  return reports;
}

}  // namespace deepseek::tune
