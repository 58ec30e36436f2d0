// A study's page and charts: the right numbers in their places, nothing of the user's as markup, odd studies, warnings.
#include "tune/report/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/random.h"
#include "base/strings.h"
#include "io/atomic_file.h"
#include "tests/io/temp_folder.h"
#include "tune/pareto.h"
#include "tune/report/findings.h"

namespace deepseek::tune {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

Setting setting_of(const std::string& space, size_t objectives = 1) {
  Setting setting;
  setting.space = *Space::parse(space);
  setting.directions.assign(objectives, Direction::kMinimize);
  return setting;
}

const char* const kSpace =
    R"({"lr": {"low": 1e-5, "high": 0.1, "log": true}, "opt": ["adam", "sgd"], "depth": {"low": 1, "high": 8},
        "momentum": {"low": 0.0, "high": 0.9, "when": {"opt": "sgd"}}})";

// Random points; values by `f` of unit coordinates and number.
template <class F>
std::vector<Trial> some_trials(const Setting& s, int n, const F& f) {
  Numbers numbers(11);
  std::vector<Trial> trials;
  for (int i = 0; i < n; ++i) {
    std::vector<double> unit;
    for (size_t k = 0; k < s.space.size(); ++k) unit.push_back(numbers.uniform());
    Trial t;
    t.number = i;
    t.state = TrialState::kComplete;
    t.point = s.space.from_unit(unit);
    t.values = f(unit, i);
    t.worker = i % 2 ? "b" : "a";
    t.started = 1.7e9 + 10 * i, t.ended = t.started + 10;
    trials.push_back(std::move(t));
  }
  return trials;
}

std::vector<double> bowl(const std::vector<double>& u, int) {
  return {(u[0] - 0.5) * (u[0] - 0.5) + 0.1 * u[1] + 0.01};
}

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

std::vector<std::string> sections(const std::string& page) {
  std::vector<std::string> ids;
  for (size_t at = page.find("<section id='"); at != std::string::npos; at = page.find("<section id='", at + 1))
    ids.push_back(page.substr(at + 13, page.find('\'', at + 13) - at - 13));
  return ids;
}

TEST(StudyReport, HoldsTheNumbers) {
  const Setting s = setting_of(kSpace);
  auto trials = some_trials(s, 60, bowl);
  trials[3].state = TrialState::kFailed, trials[3].values.clear(), trials[3].error = "out of memory";
  trials[4].state = TrialState::kPruned, trials[4].values.clear();
  trials[5].state = TrialState::kPruned, trials[5].values.clear();
  trials[59].state = TrialState::kRunning, trials[59].values.clear(), trials[59].ended = 0;
  for (const size_t i : {4, 5, 6, 7}) trials[i].reports = {{1, 0.9}, {2, 0.5}, {3, 0.4}};
  trials[17].values = {0.001234};
  const std::string page = report_page("My study", s, trials);
  EXPECT_THAT(page, HasSubstr("<h1>My study</h1>"));
  EXPECT_THAT(page, HasSubstr("<td>60: 56 complete, 2 pruned, 1 failed, 1 running</td>"));
  EXPECT_THAT(page, HasSubstr("<b>0.001234</b> (trial 17)"));
  EXPECT_THAT(page, HasSubstr("<td>10 min, from 2023-11-14 22:13 UTC to 2023-11-14 22:23 UTC</td>"));
  EXPECT_THAT(page, HasSubstr("<td>10 s on average; 1 at a time</td>"));
  EXPECT_THAT(page, HasSubstr("a: 30 (5 min)<br>b: 29 (5 min)"));
  // The parameters of the best, exact.
  const size_t at = page.find("<pre id='best'>") + 15;
  std::string best = page.substr(at, page.find("</pre>", at) - at);
  for (size_t q = best.find("&quot;"); q != std::string::npos; q = best.find("&quot;")) best.replace(q, 6, "\"");
  const auto point = s.space.parse_point(best);
  ASSERT_TRUE(point.ok()) << best;
  EXPECT_TRUE(PointEqual()(*point, trials[17].point));
  EXPECT_THAT(sections(page), ElementsAre("history", "curves", "importances", "contour", "slices", "parallel"));
  EXPECT_EQ(count(page, "<tr data-t="), 60u);
  EXPECT_THAT(page, HasSubstr("<tr data-t='17'><td>17<td>complete<td>0.001234<td>"));
  EXPECT_LT(page.find("<tr data-t='17'>"), page.find("<tr data-t='0'>")) << "the best comes first";
  EXPECT_THAT(page, HasSubstr("out of memory"));
  EXPECT_THAT(page, HasSubstr("\"17\":\"trial 17, complete: 0.001234\\nlr = "));
  EXPECT_THAT(page, Not(HasSubstr("src=")));
  EXPECT_THAT(page, Not(HasSubstr("href=")));
}

TEST(StudyReport, MarksStandForTrials) {
  const Setting s = setting_of(kSpace);
  const auto trials = some_trials(s, 40, bowl);
  const View view(s, trials);
  const Chart history = history_chart(view, 0);
  const std::string svg = io::draw_svg(history.width, history.height, history.paint);
  for (int i = 0; i < 40; ++i) EXPECT_EQ(count(svg, fmt::format("data-t='{}'", i)), 1u);
  // Marks of greater values stand higher.
  const auto height = [&](size_t i) {
    const size_t at = svg.rfind("cy='", svg.find(fmt::format("data-t='{}'", i)));
    return std::stod(svg.substr(at + 4));
  };
  for (size_t i = 1; i < 40; ++i) {
    if (std::abs(trials[i].values[0] - trials[0].values[0]) < 1e-3) continue;
    EXPECT_EQ(height(i) < height(0), trials[i].values[0] > trials[0].values[0]) << i;
  }
}

TEST(StudyReport, TextsOfTheUserAreNoMarkup) {
  const std::string evil = R"(<img src=x onerror=\"alert(1)\">)", script = "</script><script>alert(2)</script>";
  const Setting s = setting_of(fmt::format(
      R"({{"{0}": {{"low": 0.0, "high": 1.0}}, "x' y=\"1": ["{1}", "b&c"], "ok": {{"low": 1.0, "high": 2.0}}}})", evil,
      script));
  auto trials = some_trials(s, 30, bowl);
  for (Trial& t : trials) t.worker = "<b>worker</b>";
  for (const size_t i : {1, 2, 3, 4, 5})
    trials[i].state = TrialState::kFailed, trials[i].values.clear(), trials[i].error = script + "\xff\x01 <i>";
  trials[6].reports = {{1, 2.0}, {2, 1.0}};
  const std::string page = report_page("<script>alert(0)</script>", s, trials);
  EXPECT_EQ(count(page, "<script"), 2u);
  EXPECT_EQ(count(page, "</script"), 2u);
  EXPECT_THAT(page, Not(HasSubstr("<img")));
  EXPECT_THAT(page, Not(HasSubstr("<b>worker")));
  EXPECT_THAT(page, Not(HasSubstr("<i>")));
  EXPECT_THAT(page, HasSubstr("&lt;img"));
  EXPECT_THAT(page, HasSubstr("<h1>&lt;script&gt;"));
  EXPECT_EQ(first_invalid_utf8(page), page.size());
}

TEST(StudyReport, OddStudiesHaveAPageToo) {
  const Setting s = setting_of(kSpace);
  EXPECT_THAT(report_page("t", s, {}), HasSubstr("no trial is complete yet"));
  Trial waiting;
  waiting.state = TrialState::kWaiting;
  EXPECT_THAT(report_page("t", s, {waiting}), HasSubstr("<td>1: 1 waiting</td>"));

  auto trials = some_trials(s, 30, bowl);
  const std::string one = report_page("t", s, {trials[0]});
  EXPECT_THAT(one, HasSubstr("1 complete trial: too few"));
  EXPECT_THAT(sections(one), ElementsAre("history", "slices"));
  EXPECT_THAT(one, HasSubstr("importances: expected at least 4 complete trials, got 1"));

  auto equal = trials;
  for (Trial& t : equal) t.values = {5};
  const std::string same = report_page("t", s, equal);
  EXPECT_THAT(same, HasSubstr("all complete trials have 5"));
  EXPECT_THAT(sections(same), ElementsAre("history", "slices", "parallel"));

  auto huge = trials;
  huge[0].values = {1e299}, huge[1].values = {-1e299}, huge[2].values = {INFINITY}, huge[3].values = {NAN};
  huge[4].values = {1.5e308}, huge[5].values = {}, huge[6].values = {1, 2}, huge[7].point = {1}, huge[8].point = {};
  huge[9].point = {NAN, 7, -3, 1e9};
  huge[10].reports = {{1, INFINITY}, {2, 1e308}, {3, NAN}};
  huge[11].constraints = {NAN};
  const std::string page = report_page("t", s, huge);
  EXPECT_THAT(page, HasSubstr("5 complete trials have no finite values, or not one per objective"));
  for (const char* word : {"'nan", "'inf", "'-inf", "NaN"})
    EXPECT_THAT(page.substr(0, page.find("<h2>Trials")), Not(HasSubstr(word)));

  auto failed = trials;
  for (Trial& t : failed) t.state = TrialState::kFailed, t.values.clear();
  EXPECT_THAT(report_page("t", s, failed), HasSubstr("30 of 30 trials failed"));
  auto infeasible = trials;
  for (Trial& t : infeasible) t.constraints = {1};
  EXPECT_THAT(report_page("t", s, infeasible), HasSubstr("no complete trial keeps all constraints"));
  const Setting fixed = setting_of(R"({"a": 1, "b": {"low": 2.0, "high": 2.0}})");
  EXPECT_THAT(sections(report_page("t", fixed, some_trials(fixed, 20, bowl))), ElementsAre("history", "importances"));
}

TEST(StudyReport, LargeStudiesHaveSmallPages) {
  std::string space;
  for (int k = 0; k < 100; ++k) space += fmt::format("{}\"p{}\": {{\"low\": 0.0, \"high\": 1.5}}", k ? ", " : "{", k);
  const Setting s = setting_of(space + "}");
  auto trials = some_trials(s, 5000, bowl);
  for (Trial& t : trials)
    for (int k = 0; k < 30; ++k) t.reports.push_back({k, t.values[0] + 1.0 / (k + 1)});
  const std::string page = report_page("t", s, trials);
  EXPECT_LT(page.size(), 3'000'000u);
  EXPECT_THAT(page, HasSubstr("The best 1000 of 5000 trials; 4000 are left out."));
  EXPECT_THAT(page, HasSubstr("The 30 most important of 100 parameters."));
  EXPECT_THAT(page, HasSubstr("12 of 100 parameters are shown."));
  EXPECT_EQ(count(page, "<tr data-t="), 1000u);
}

TEST(StudyReport, OfTwoObjectivesShowsTheFront) {
  const Setting s = setting_of(kSpace, 2);
  const double values[][2] = {{4, 4}, {1, 3}, {2, 2}, {3, 1}, {3, 3}, {2.5, 3.5}};
  auto trials = some_trials(s, 6, [&](const auto&, int i) { return std::vector<double>{values[i][0], values[i][1]}; });
  const std::string page = report_page("t", s, trials);
  EXPECT_THAT(sections(page),
              ElementsAre("history_1", "history_2", "pareto", "hypervolume", "importances", "slices", "parallel"));
  EXPECT_THAT(page, HasSubstr("3 of 3 trials on the front."));
  EXPECT_THAT(page, HasSubstr("{&quot;trial&quot;: 2, &quot;values&quot;: [2, 2]"));
  // 3 x 1 + 2 x 1 + 1 x 1 below (4, 4).
  EXPECT_THAT(page, HasSubstr("up to (4, 4): 6 after the last trial."));
}

TEST(StudyReport, HypervolumeAgreesWithItsDefinition) {
  for (const Direction second : {Direction::kMinimize, Direction::kMaximize}) {
    Setting s = setting_of(kSpace, 2);
    s.directions[1] = second;
    const bool up = second == Direction::kMaximize;
    // Coarse, so that many are equal in one objective or both.
    const auto trials = some_trials(s, 80, [&](const auto& u, int) {
      return std::vector<double>{std::round(9 * u[0]), std::round(9 * u[2])};
    });
    const View view(s, trials);
    std::vector<std::vector<double>> losses;
    for (size_t i = 0; i < trials.size(); ++i) losses.push_back(view.losses(i));
    const double expected = hypervolume(losses, {view.shown[0].high, up ? -view.shown[1].low : view.shown[1].high});
    EXPECT_THAT(hypervolume_chart(view).caption, HasSubstr(fmt::format("): {} after", io::short_number(expected, 6))));
  }
}

TEST(StudyReport, OfThreeObjectives) {
  const Setting s = setting_of(kSpace, 3);
  const auto trials = some_trials(s, 50, [](const auto& u, int) {
    return std::vector<double>{u[0] + 0.1 * u[2], 1 - u[0], u[3]};
  });
  const auto ids = sections(report_page("t", s, trials));
  EXPECT_THAT(ids, ::testing::Contains("pareto"));
  EXPECT_THAT(ids, ::testing::Contains("history_3"));
}

TEST(StudyCharts, AreFilesOfPng) {
  TempFolder folder;
  const Setting s = setting_of(kSpace);
  const auto paths = write_charts(folder / "charts", s, some_trials(s, 40, bowl));
  ASSERT_TRUE(paths.ok());
  ASSERT_EQ(paths->size(), 5u);
  for (const std::string& path : *paths) {
    const auto bytes = io::read_file(path);
    ASSERT_TRUE(bytes.ok()) << path;
    EXPECT_GT(bytes->size(), 5000u) << path;
    EXPECT_EQ(static_cast<char>((*bytes)[1]), 'P') << path;
  }
  EXPECT_THAT((*paths)[0], ::testing::EndsWith("/charts/history.png"));
  EXPECT_TRUE(write_report(folder / "page.html", "t", s, {}).ok());
  EXPECT_EQ(write_charts(folder / "page.html", s, {}).status().code(), ErrorCode::kIo);
}

TEST(Findings, NothingToSay) {
  const Setting s = setting_of(kSpace);
  auto trials = some_trials(s, 40, bowl);
  trials[38].values = {0.001};
  trials[38].point = {0.001, 0, 4, NAN};
  EXPECT_THAT(findings(View(s, trials)), IsEmpty());
}

TEST(Findings, TheBestAtAnEndAsksForAWiderRange) {
  const Setting s = setting_of(
      R"({"lr": {"low": 1e-5, "high": 0.1, "log": true}, "depth": {"low": 1, "high": 8, "log": false},
          "size": {"low": 10.0, "high": 20.0}, "share": {"low": 0.0, "high": 1.0}})");
  // All four are best at their upper ends, but a share of 1 can't be more.
  auto trials =
      some_trials(s, 60, [](const auto& u, int) { return std::vector<double>{-2 * u[0] - u[1] - u[2] - u[3]}; });
  trials[55].point = {0.099, 8, 19.95, 1};
  trials[55].values = {-6};
  EXPECT_THAT(
      findings(View(s, trials)),
      UnorderedElementsAre("lr: the best value 0.099 lies at the upper end of its range (1e-5 to 0.1); try high = 1",
                           "depth: the best value 8 lies at the upper end of its range (1 to 8); try high = 12",
                           "size: the best value 19.95 lies at the upper end of its range (10 to 20); try high = 25"));
  // Downwards, and maximised.
  Setting up = s;
  up.directions = {Direction::kMaximize};
  trials[55].point = {1e-5, 1, 10, 0};
  trials[55].values = {6};
  const auto list = findings(View(up, trials));
  EXPECT_THAT(list, ::testing::Contains("lr: the best value 1e-5 lies at the lower end of its range (1e-5 to 0.1); try "
                                        "low = 1e-6"));
  EXPECT_THAT(list, ::testing::Contains(HasSubstr("size: the best value 10 lies at the lower end of its range (10 to "
                                                  "20); try low = 5")));
  for (const std::string& f : list) {
    EXPECT_THAT(f, Not(StartsWith("share")));
    EXPECT_THAT(f, Not(StartsWith("depth")));
  }
}

TEST(Findings, FailuresThatGather) {
  const Setting s = setting_of(kSpace);
  const auto gathered = [&](const auto& fails) {
    auto trials = some_trials(s, 60, bowl);
    for (Trial& t : trials)
      if (fails(t)) t.state = TrialState::kFailed, t.values.clear(), t.error = "loss is NaN\nat line 3";
    trials.back().state = TrialState::kComplete, trials.back().values = {0};
    std::string all;
    for (const std::string& f : findings(View(s, trials))) all += f + "\n";
    return all;
  };
  EXPECT_THAT(gathered([](const Trial& t) { return t.point[1] == 1; }), HasSubstr("of them where opt = \"sgd\""));
  const std::string high = gathered([](const Trial& t) { return t.point[0] > 0.02; });
  EXPECT_THAT(high, HasSubstr("of them where lr >= 0.0"));
  EXPECT_THAT(high, HasSubstr("loss is NaN"));
  EXPECT_THAT(high, Not(HasSubstr("at line 3")));
  const std::string anywhere = gathered([](const Trial& t) { return t.number % 4 == 0; });
  EXPECT_THAT(anywhere, HasSubstr("15 of 60 trials failed; most often (15 times): loss is NaN"));
  EXPECT_THAT(anywhere, Not(HasSubstr("of them where")));
}

TEST(Findings, NoProgressAndRepeatedPoints) {
  const Setting s = setting_of(kSpace);
  auto trials = some_trials(s, 60, bowl);
  trials[20].values = {0.0001};
  trials[20].point = {0.001, 0, 4, NAN};
  EXPECT_THAT(findings(View(s, trials)),
              ElementsAre(HasSubstr("no better value in the last 39 of 60 complete trials")));
  trials[55].values = {0.00005};
  trials[55].point = {0.001, 0, 4, NAN};
  EXPECT_THAT(findings(View(s, trials)), IsEmpty());
  for (size_t i = 0; i < 30; ++i) trials[i].point = trials[55].point;
  EXPECT_THAT(findings(View(s, trials)), ElementsAre("30 of 60 trials repeat a point that was tried before"));
}

TEST(StudyView, RangesLeaveOutTheWorstOutliers) {
  std::vector<double> values;
  for (int i = 0; i < 40; ++i) values.push_back(1 + 0.05 * i);
  Shown s = shown_range(values, false);
  EXPECT_EQ(s.low, 1);
  EXPECT_EQ(s.high, values.back());
  EXPECT_EQ(s.beyond, 0u);
  values.push_back(1e6), values.push_back(-1e6);
  s = shown_range(values, false);
  EXPECT_EQ(s.low, -1e6) << "the best stays";
  EXPECT_EQ(s.high, 1 + 0.05 * 39);
  EXPECT_EQ(s.beyond, 1u);
  s = shown_range(values, true);
  EXPECT_EQ(s.low, 1);
  EXPECT_EQ(s.high, 1e6);
  EXPECT_FALSE(s.log);
  values.clear();
  for (int i = 0; i < 40; ++i) values.push_back(std::pow(10, i % 5));
  EXPECT_TRUE(shown_range(values, false).log);
  EXPECT_THAT(thinned({1, 2, 3, 4, 5, 6, 7}, 3), ElementsAre(1, 4, 7));
  EXPECT_EQ(shortened("naïve", 3), "na…");
}

}  // namespace
}  // namespace deepseek::tune
