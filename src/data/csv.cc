#include "data/csv.h"

#include "base/files.h"
#include "base/strings.h"

namespace deepseek::data {
namespace {

constexpr size_t kMostBytes = size_t{1} << 30;

char separator_of(std::string_view first_line) {
  for (const char c : {',', '\t', ';'})
    if (first_line.find(c) != first_line.npos) return c;
  return ',';
}

}  // namespace

Result<Csv> read_csv(const std::string& path) {
  DS_ASSIGN(const std::string all, read_text(path, kMostBytes));
  std::string_view text = all;
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  int64_t line = 1;
  const auto corrupt = [&](const std::string& why) {
    return make_error(ErrorCode::kDataCorrupt, "[csv] '{}', line {}: {}", path, line, why);
  };
  if (const size_t bad = first_invalid_utf8(text); bad < text.size())
    return make_error(ErrorCode::kDataCorrupt, "[csv] '{}' is not in UTF-8 at byte {}; save it so", path, bad);
  const char separator = separator_of(text.substr(0, text.find('\n')));
  Csv out;
  for (size_t at = 0; at < text.size();) {
    const int64_t begin = line;
    std::vector<std::string> row;
    for (bool more = true; more;) {
      std::string& field = row.emplace_back();
      if (at < text.size() && text[at] == '"') {
        for (++at;; ++at) {
          if (at == text.size()) return corrupt("a quote is not closed");
          if (text[at] == '"' && (at + 1 == text.size() || text[at + 1] != '"')) break;
          if (text[at] == '"') ++at;
          if (text[at] == '\n') ++line;
          field += text[at];
        }
        ++at;
        if (at < text.size() && text[at] != separator && text[at] != '\n' && text[at] != '\r')
          return corrupt("text follows a closed quote");
      } else {
        while (at < text.size() && text[at] != separator && text[at] != '\n') field += text[at++];
        if (field.ends_with('\r')) field.pop_back();
      }
      if (at < text.size() && text[at] == '\r') ++at;
      more = at < text.size() && text[at] == separator;
      if (at < text.size()) line += text[at++] == '\n';
    }
    if (row.size() == 1 && trim(row[0]).empty()) continue;
    if (out.header.empty()) {
      out.header = std::move(row);
    } else if (row.size() != out.header.size()) {
      line = begin;
      return corrupt(fmt::format("{} fields, but the header has {}", row.size(), out.header.size()));
    } else {
      out.rows.push_back(std::move(row));
      out.lines.push_back(begin);
    }
  }
  if (out.header.empty())
    return make_error(ErrorCode::kDataCorrupt, "[csv] '{}' is empty, expected a header and rows", path);
  return out;
}

}  // namespace deepseek::data
