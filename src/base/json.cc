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

struct DepthCheck : nlohmann::json_sax<nlohmann::json> {
  explicit DepthCheck(size_t most) : most_depth(most) {}
  const size_t most_depth;
  size_t depth = 0;
  std::string wrong;

  bool deeper() {
    if (++depth <= most_depth) return true;
    wrong = fmt::format("nests deeper than {} levels", most_depth);
    return false;
  }
  bool start_object(size_t) override { return deeper(); }
  bool end_object() override { return --depth, true; }
  bool start_array(size_t) override { return deeper(); }
  bool end_array() override { return --depth, true; }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& e) override {
    wrong = fmt::format("is not valid JSON: {}", e.what());
    return false;
  }
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(int64_t) override { return true; }
  bool number_unsigned(uint64_t) override { return true; }
  bool number_float(double, const std::string&) override { return true; }
  bool string(std::string&) override { return true; }
  bool key(std::string&) override { return true; }
  bool binary(nlohmann::json::binary_t&) override { return true; }
};

}  // namespace

Status check_json(std::string_view text, size_t most_depth) {
  DepthCheck check(most_depth);
  if (nlohmann::json::sax_parse(text.begin(), text.end(), &check)) return {};
  return make_error(ErrorCode::kDataCorrupt, "{}", check.wrong);
}

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
