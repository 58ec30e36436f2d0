// Text helpers for messages. Test: tests/base/strings_test.cc
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace deepseek {

// Levenshtein distance: insertions, deletions and replacements each cost 1.
size_t edit_distance(std::string_view a, std::string_view b);
// The candidate nearest to `name`, or empty where none is near enough to be a typing mistake.
std::string nearest(std::string_view name, const std::vector<std::string>& candidates);
// "; did you mean 'momentum'?" where a candidate is near enough, else empty.
std::string did_you_mean(std::string_view name, const std::vector<std::string>& candidates);
std::string join(const std::vector<std::string>& parts, std::string_view separator);
// "a.b..c" at '.' is {"a", "b", "", "c"}; an empty text is one empty part.
std::vector<std::string> split(std::string_view text, char separator);
// ASCII letters alone change.
std::string lower(std::string_view text);
std::string upper(std::string_view text);
std::string_view trim(std::string_view text);  // without spaces and tabs at both ends
// The number that the whole text is, without regard to the locale.
std::optional<double> parse_number(std::string_view text);
// Where the first byte stands that is not UTF-8 (RFC 3629), or the size of the text.
size_t first_invalid_utf8(std::string_view text);

}  // namespace deepseek
