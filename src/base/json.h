// JSON of nlohmann's types, read and written here: its parser and its writer take seconds to compile in each file that
// calls them. Test: tests/base/json_test.cc
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace deepseek {

// Parsed text, as J::parse(); J: nlohmann::json or nlohmann::ordered_json. Without `throws` bad text gives what
// is_discarded(), else it throws nlohmann's parse_error, which names the line and the column.
template <class J>
J parse_json(std::string_view text, bool throws = true);

// Whether a stranger's text is JSON that nests no deeper than `most_depth`, without making anything of it. The error
// says what is wrong, and of faults in the text the line and the column.
Status check_json(std::string_view text, size_t most_depth);

// Text, as json.dump(): in one line, or with `indent` >= 0 on many. Bytes that aren't UTF-8 throw
// nlohmann's type_error; with `replace` they become U+FFFD.
std::string dump_json(const nlohmann::json& json, int indent = -1, bool replace = false);
std::string dump_json(const nlohmann::ordered_json& json, int indent = -1, bool replace = false);

}  // namespace deepseek
