// Transforms of dates and times, in UTC.
#include <chrono>
#include <cmath>
#include <limits>

#include "features/primitives.h"

namespace deepseek::features {

namespace {

using std::chrono::days;
using std::chrono::sys_days;
using std::chrono::year_month_day;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kSecond = 1e6;

// A time taken apart. Times of the same day as the one before, which is most of a sorted column, keep the date.
struct Moment {
  Moment() = default;
  explicit Moment(double microseconds) { set(microseconds); }
  void set(double microseconds) {
    const double whole = std::floor(microseconds / 86400e6);
    seconds = static_cast<int64_t>(std::floor((microseconds - whole * 86400e6) / kSecond));
    if (whole == number) return;
    number = whole;
    day = sys_days(days(static_cast<int64_t>(whole)));
    date = day;
    y = static_cast<int>(date.year());
    m = static_cast<int>(static_cast<unsigned>(date.month()));
    d = static_cast<int>(static_cast<unsigned>(date.day()));
  }
  int64_t weekday() const { return static_cast<int64_t>((std::chrono::weekday(day).iso_encoding()) - 1); }  // Monday 0
  int64_t day_of_year() const { return (day - sys_days(date.year() / 1 / 1)).count() + 1; }
  int last_day() const {
    return static_cast<int>(static_cast<unsigned>((date.year() / date.month() / std::chrono::last).day()));
  }
  int64_t hour() const { return seconds / 3600; }
  double number = kNan;  // of the day
  sys_days day{};
  year_month_day date{};
  int64_t seconds = 0;  // of the day
  int y = 0, m = 0, d = 0;
};

template <auto F>
void part(const Rows& r, double* out) {
  Moment moment;
  for (int64_t i = 0; i < r.size; ++i) {
    out[i] = kNan;
    if (std::isnan(r.x[0][i])) continue;
    moment.set(r.x[0][i]);
    out[i] = static_cast<double>(F(moment));
  }
}
// Whether it is so; a missing time is not.
template <auto F>
void is(const Rows& r, double* out) {
  Moment moment;
  for (int64_t i = 0; i < r.size; ++i) {
    out[i] = 0;
    if (std::isnan(r.x[0][i])) continue;
    moment.set(r.x[0][i]);
    out[i] = F(moment) ? 1 : 0;
  }
}

int iso_week(const Moment& t) {  // ISO 8601: the week of its Thursday
  const sys_days thursday = t.day + days(3 - t.weekday());
  const year_month_day date = thursday;
  return static_cast<int>((thursday - sys_days(date.year() / 1 / 1)).count() / 7 + 1);
}
// Weeks of a month begin on Sunday.
double week_of_month(const Moment& t) {
  const int64_t first =
      Moment(static_cast<double>((t.day - days(t.d - 1)).time_since_epoch().count()) * 86400e6).weekday();
  const int64_t adjusted = first == 6 ? t.d : t.d + first + 1;
  return std::ceil(static_cast<double>(adjusted) / 7);
}
int part_of_day(const Moment& t) {  // numbers of kPartsOfDay
  const int64_t h = t.hour();
  return h <= 3 || h == 23 ? 5 : h <= 5 ? 1 : h <= 7 ? 2 : h <= 10 ? 4 : h <= 13 ? 7 : h <= 16 ? 0 : h <= 19 ? 3 : 6;
}
const std::vector<std::string> kPartsOfDay = {"afternoon",    "dawn",     "early morning", "evening",
                                              "late morning", "midnight", "night",         "noon"};
int season(const Moment& t) {  // of the northern half of the earth; numbers of kSeasons
  const int at = t.m * 100 + t.d;
  return at <= 320 || at >= 1221 ? 3 : at <= 620 ? 1 : at <= 922 ? 2 : 0;
}
const std::vector<std::string> kSeasons = {"fall", "spring", "summer", "winter"};

void time_since(const Rows& r, double* out) {
  for (int64_t i = 0; i < r.size; ++i) out[i] = (r.now[i] - r.x[0][i]) / kSecond / seconds_of(r.arguments[0]);
}
void age(const Rows& r, double* out) {  // whole days by 365
  for (int64_t i = 0; i < r.size; ++i) out[i] = std::floor((r.now[i] - r.x[0][i]) / 86400e6) / 365;
}
void is_lunch_time(const Rows& r, double* out) {
  for (int64_t i = 0; i < r.size; ++i)
    out[i] = !std::isnan(r.x[0][i]) && static_cast<double>(Moment(r.x[0][i]).hour()) == r.arguments[0] ? 1 : 0;
}
void is_working_hours(const Rows& r, double* out) {
  for (int64_t i = 0; i < r.size; ++i) {
    const double hour = std::isnan(r.x[0][i]) ? -1 : static_cast<double>(Moment(r.x[0][i]).hour());
    out[i] = hour >= r.arguments[0] && hour <= r.arguments[1] ? 1 : 0;
  }
}

}  // namespace

void add_dates(std::vector<Primitive>& list) {
  const std::vector<std::vector<Wants>> dates = {{{Logical::kDatetime}}};
  const auto add = [&](const char* name, const char* doc, Schema output, Map map,
                       std::vector<Parameter> parameters = {}) {
    list.push_back({.name = name,
                    .doc = doc,
                    .inputs = dates,
                    .output = output,
                    .parameters = std::move(parameters),
                    .missing = kNan,
                    .map = map});
  };
  add("year", "year", kRank, part<[](const Moment& t) { return t.y; }>);
  add("quarter", "quarter, 1 to 4", kRank, part<[](const Moment& t) { return (t.m + 2) / 3; }>);
  add("month", "month, 1 to 12", kRank, part<[](const Moment& t) { return t.m; }>);
  add("week", "week of the year (ISO 8601)", kRank, part<iso_week>);
  add("day", "day of the month", kRank, part<[](const Moment& t) { return t.d; }>);
  add("day_of_year", "day of the year", kRank, part<[](const Moment& t) { return t.day_of_year(); }>);
  add("days_in_month", "length of the month", kRank, part<[](const Moment& t) { return t.last_day(); }>);
  add("weekday", "day of the week, 0 for Monday", kRank, part<[](const Moment& t) { return t.weekday(); }>);
  add("hour", "hour", kRank, part<[](const Moment& t) { return t.hour(); }>);
  add("minute", "minute", kRank, part<[](const Moment& t) { return t.seconds / 60 % 60; }>);
  add("second", "second", kRank, part<[](const Moment& t) { return t.seconds % 60; }>);
  add("nth_week_of_month", "week of the month, from Sunday on", kDoubleNumber, part<week_of_month>);
  add("part_of_day", "dawn, early morning, ... by hour", kCategories, part<part_of_day>);
  list.back().words = kPartsOfDay;
  add("season", "season of the northern hemisphere", kCategories, part<season>);
  list.back().words = kSeasons;
  add("is_weekend", "whether it is Saturday or Sunday", kMaybe, is<[](const Moment& t) { return 4 < t.weekday(); }>);
  add("is_leap_year", "whether the year has 366 days", kMaybe,
      is<[](const Moment& t) { return t.date.year().is_leap(); }>);
  add("is_month_start", "whether it is the first of a month", kMaybe, is<[](const Moment& t) { return t.d == 1; }>);
  add("is_month_end", "whether it is the last of a month", kMaybe,
      is<[](const Moment& t) { return t.d == t.last_day(); }>);
  add("is_quarter_start", "whether it is the first of a quarter", kMaybe,
      is<[](const Moment& t) { return t.d == 1 && t.m % 3 == 1; }>);
  add("is_quarter_end", "whether it is the last of a quarter", kMaybe,
      is<[](const Moment& t) { return t.d == t.last_day() && t.m % 3 == 0; }>);
  add("is_year_start", "whether it is January 1", kMaybe, is<[](const Moment& t) { return t.d == 1 && t.m == 1; }>);
  add("is_year_end", "whether it is December 31", kMaybe, is<[](const Moment& t) { return t.d == 31 && t.m == 12; }>);
  add("is_first_week_of_month", "whether it is the first week, from Sunday on", kMaybe,
      part<[](const Moment& t) { return week_of_month(t) == 1 ? 1 : 0; }>);
  add("is_lunch_time", "whether the hour is lunch_hour", kMaybe, is_lunch_time, {{"lunch_hour", 12}});
  add("is_working_hours", "whether the hour is in [start_hour, end_hour]", kMaybe, is_working_hours,
      {{"start_hour", 8}, {"end_hour", 18}});
  add("time_since", "time to the cut-off", kNumber, time_since, {{"unit", 0, time_units()}});
  list.back().needs_now = true;
  add("age", "years of 365 days to the cut-off", kDoubleNumber, age);
  list.back().inputs = {{{Logical::kDatetime, kDateOfBirth}}};
  list.back().needs_now = true;
}

}  // namespace deepseek::features
