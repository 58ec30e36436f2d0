#include "tables/text.h"

#include <algorithm>
#include <limits>
#include <set>

namespace deepseek::tables {

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t'; }
bool is_space(char c) { return is_blank(c) || c == '\r' || c == '\v' || c == '\f'; }
bool is_punctuation(char c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}
bool in_word(char c) { return is_digit(c) || is_upper(c) || is_lower(c) || c == '_' || (c & 0x80) != 0; }
double length(std::string_view s) {
  return static_cast<double>(std::count_if(s.begin(), s.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}
template <class P>
double count(std::string_view s, P predicate) {
  return static_cast<double>(std::count_if(s.begin(), s.end(), predicate));
}
std::string_view stripped(std::string_view s) {
  while (!s.empty() && is_punctuation(s.front())) s.remove_prefix(1);
  while (!s.empty() && is_punctuation(s.back())) s.remove_suffix(1);
  return s;
}
// f(word) for what stands between single delimiters, empty ones too.
template <class D, class F>
void each_word(std::string_view s, D delimits, F f) {
  size_t begin = 0;
  for (size_t i = 0; i <= s.size(); ++i) {
    if (i < s.size() && !delimits(s[i])) continue;
    f(s.substr(begin, i - begin));
    begin = i + 1;
  }
}

double words(std::string_view s) {
  double n = 0;
  each_word(s, is_blank, [&](std::string_view w) { n += stripped(w).empty() ? 0 : 1; });
  return n;
}
double unique_words(std::string_view s) {
  std::set<std::string_view> seen;
  each_word(s, is_blank, [&](std::string_view w) {
    if (const auto bare = stripped(w); !bare.empty()) seen.insert(bare);
  });
  return static_cast<double>(seen.size());
}
double upper_case_words(std::string_view s) {
  double n = 0;
  each_word(s, is_blank, [&](std::string_view w) {
    n += !stripped(w).empty() && std::none_of(w.begin(), w.end(), is_lower) ? 1 : 0;
  });
  return n;
}
double median_word_length(std::string_view s) {
  std::vector<double> lengths;
  each_word(s, is_blank, [&](std::string_view w) {
    if (!w.empty()) lengths.push_back(length(w));
  });
  if (lengths.empty()) return kNan;
  std::sort(lengths.begin(), lengths.end());
  const size_t n = lengths.size();
  return n % 2 == 1 ? lengths[n / 2] : (lengths[n / 2 - 1] + lengths[n / 2]) / 2;
}
// Words that begin with a capital: runs from each capital to the next space, counted once.
double title_words(std::string_view s) {
  double n = 0;
  for (size_t i = 0; i < s.size(); ++i) {
    if (!is_upper(s[i])) continue;
    ++n;
    while (i < s.size() && !is_space(s[i])) ++i;
  }
  return n;
}
double upper_case(std::string_view s) { return count(s, is_upper); }
double spaces(std::string_view s) {
  return count(s, [](char c) { return c == ' '; });
}
double punctuation(std::string_view s) { return count(s, is_punctuation); }
double word_length(std::string_view s) {
  return length(s) - count(s, [](char c) { return is_punctuation(c) || is_blank(c); });
}
double separators(std::string_view s) {
  double n = 0;
  for (const char c : std::string_view(" .,!?;\n")) n += s.find(c) != std::string_view::npos ? 1 : 0;
  return n;
}
// Words after `mark` at the start or after a space; `letter`: with one that is no digit.
double marked(std::string_view s, char mark, bool letter) {
  double n = 0;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] != mark || (i > 0 && !is_space(s[i - 1]))) continue;
    size_t end = i + 1;
    bool found = !letter;
    for (; end < s.size() && in_word(s[end]); ++end) found |= !is_digit(s[end]);
    const bool more = end < s.size() && s[end] == mark;
    if (found && end > i + 1 && !more) ++n;
  }
  return n;
}
double hashtags(std::string_view s) { return marked(s, '#', true); }
double mentions(std::string_view s) { return marked(s, '@', false); }

}  // namespace

const std::vector<TextStatistic>& text_statistics() {
  static const std::vector<TextStatistic> list = {
      {"num_words", "words", words, kNan, true},
      {"num_characters", "characters", length, kNan, true},
      {"number_of_unique_words", "distinct words", unique_words, 0, true},
      {"upper_case_word_count", "words without a small letter", upper_case_words, 0, true},
      {"title_word_count", "words with a capital", title_words, 0, true},
      {"median_word_length", "median length of a word", median_word_length, 0, false},
      {"total_word_length", "characters that are neither punctuation nor spaces", word_length, 0, true},
      {"upper_case_count", "capitals", upper_case, 0, true},
      {"punctuation_count", "punctuation marks", punctuation, 0, true},
      {"whitespace_count", "spaces", spaces, 0, true},
      {"num_unique_separators", "kinds of separators: space . , ! ? ; newline", separators, kNan, true},
      {"number_of_hashtags", "words after #", hashtags, 0, true},
      {"number_of_mentions", "words after @", mentions, 0, true},
  };
  return list;
}

}  // namespace deepseek::tables
