#include "base/json.h"

#include <nlohmann/json.hpp>

namespace deepseek {

template <class J>
J parse_json(std::string_view text, bool throws) {
  return J::parse(text, nullptr, throws);
}
template nlohmann::json parse_json<nlohmann::json>(std::string_view, bool);
template nlohmann::ordered_json parse_json<nlohmann::ordered_json>(std::string_view, bool);

namespace {
template <class J>
std::string dump(const J& json, int indent, bool replace) {
  return json.dump(indent, ' ', false, replace ? J::error_handler_t::replace : J::error_handler_t::strict);
}
}  // namespace

std::string dump_json(const nlohmann::json& json, int indent, bool replace) { return dump(json, indent, replace); }
std::string dump_json(const nlohmann::ordered_json& json, int indent, bool replace) {
  return dump(json, indent, replace);
}

}  // namespace deepseek
