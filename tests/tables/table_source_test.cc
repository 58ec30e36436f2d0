// A file of rows as parts for training, and new files as inputs: against values worked out here, and against themselves,
// bit for bit. tests/python/test_table_source.py compares with scikit-learn.
#include "tables/table_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/random.h"
#include "base/strings.h"
#include "tables/files.h"
#include "tables/pipeline.h"
#include "tables/targets.h"

namespace deepseek::tables {
namespace {

using data::DatasetPtr;
using data::Params;
using graph::Tensor;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr int kRows = 500;
const char* const kCities[] = {"Berlin", "Paris", "Rome"};

// Row i of the file: id, age (whole, some missing), income (some missing), city (some missing), member, joined, shop,
// day, species (a quarter, a quarter, a half), price.
std::string row(int i, const std::map<int, std::string>& others = {}) {
  if (const auto other = others.find(i); other != others.end()) return other->second;
  const auto u = [i](uint64_t column) { return uniform(hash_of(static_cast<uint64_t>(i), column)); };
  const std::string age = u(1) < 0.1 ? "" : fmt::format("{}", 18 + static_cast<int>(60 * u(2)));
  const std::string income = u(3) < 0.1 ? "NA" : fmt::format("{:.2f}", 1000 + 4000 * u(4));
  const std::string city = u(5) < 0.1 ? "" : kCities[static_cast<int>(3 * u(6))];
  return fmt::format("{},{},{},{},{},2024-{:02}-{:02},{},{},{},{:.3f}", i, age, income, city,
                     u(7) < 0.5 ? "true" : "false", 1 + static_cast<int>(12 * u(8)), 1 + static_cast<int>(28 * u(9)),
                     static_cast<int>(25 * u(10)), i * 7 % kRows,
                     i % 4 == 0   ? "setosa"
                     : i % 4 == 1 ? "versicolor"
                                  : "virginica",
                     100 * u(11));
}
std::string people(const std::map<int, std::string>& others = {}) {
  std::string text = "id,age,income,city,member,joined,shop,day,species,price\n";
  for (int i = 0; i < kRows; ++i) text += row(i, others) + "\n";
  return text;
}

std::vector<float> values(const Tensor& t) { return {t.as<float>(), t.as<float>() + t.num_elements()}; }
std::vector<int64_t> labels(const Tensor& t) { return {t.as<int64_t>(), t.as<int64_t>() + t.num_elements()}; }
Tensor all_of(const DatasetPtr& part, const std::string& field) {
  return part->read(data::all_rows(part->size())).value().at(field);
}
bool same_bits(const Tensor& a, const Tensor& b) {
  return a.type() == b.type() && std::memcmp(a.data(), b.data(), a.num_bytes()) == 0;
}
Json spec_of(const DatasetPtr& part) { return Json::parse(part->input_spec()); }

class TableSource : public ::testing::Test {
 protected:
  void SetUp() override {
    deepseek_register_sources();
    std::string pattern = fs::temp_directory_path() / "table-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    people_ = write("people.csv", people());
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string at(const std::string& name) const { return folder_ / name; }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(at(name), std::ios::binary) << text;
    return at(name);
  }
  static data::Splits open(const Params& params) {
    auto splits = data::open_dataset("table", params);
    EXPECT_TRUE(splits.ok()) << splits.status().to_string();
    return splits.ok() ? *splits : data::Splits();
  }
  static std::string error(const Params& params) {
    const auto splits = data::open_dataset("table", params);
    return splits.ok() ? "no error" : splits.status().to_string();
  }
  static data::Input input(const DatasetPtr& part, const std::string& path) {
    auto made = data::open_input(part->input_spec(), path);
    EXPECT_TRUE(made.ok()) << made.status().to_string();
    return made.ok() ? *made : data::Input();
  }
  static std::string input_error(const DatasetPtr& part, const std::string& path) {
    const auto made = data::open_input(part->input_spec(), path);
    return made.ok() ? "no error" : made.status().to_string();
  }
  // The ids of a part's rows: with the same seed and rows they are those of any other inputs.
  std::vector<float> ids(Params params, DatasetPtr data::Splits::*part) const {
    params["columns"] = "id";
    params["pipeline"] = "impute";
    return values(all_of(open(params).*part, "x"));
  }

  fs::path folder_;
  std::string people_;
};

TEST_F(TableSource, SplitsAndFieldsOfClasses) {
  const Params params = {{"file", people_}, {"target", "species"}, {"ignore", "id, price"}};
  const data::Splits s = open(params);
  EXPECT_EQ(s.train->size(), 360);
  EXPECT_EQ(s.validation->size(), 40);
  EXPECT_EQ(s.test->size(), 100);
  // Numbers keep their places, dates become parts, and text and dates go to the end.
  EXPECT_THAT(spec_of(s.train)["features"].get<std::vector<std::string>>(),
              ElementsAre("age", "income", "member", "shop", "day", "joined_month", "joined_day", "joined_day_of_week",
                          "city=Berlin", "city=Paris", "city=Rome"));
  EXPECT_EQ(s.train->find("x")->sample, (graph::TensorType{DType::kF32, {11}}));
  EXPECT_EQ(s.train->find("y")->sample, (graph::TensorType{DType::kI64, {}}));
  EXPECT_THAT(s.test->find("y")->class_names, ElementsAre("setosa", "versicolor", "virginica"));
  // Stratified: each class by the fractions, within a row.
  for (const DatasetPtr& part : {s.train, s.validation, s.test}) {
    const std::vector<int64_t> y = labels(all_of(part, "y"));
    for (int c = 0; c < 3; ++c)
      EXPECT_NEAR(static_cast<double>(std::count(y.begin(), y.end(), c)),
                  static_cast<double>(part->size()) * (c == 2 ? 0.5 : 0.25), 1.0);
  }
  // Scaled by the training part alone, all of it.
  const Tensor x = all_of(s.train, "x");
  for (const int c : {0, 1, 3}) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < 360; ++i) sum += x.at(i * 11 + c), squares += x.at(i * 11 + c) * x.at(i * 11 + c);
    EXPECT_NEAR(sum / 360, 0, 1e-6);
    EXPECT_NEAR(squares / 360, 1, 1e-6);
  }
  EXPECT_TRUE(same_bits(x, all_of(open(params).train, "x")));
  Params other = params;
  other["seed"] = "1";
  EXPECT_FALSE(same_bits(x, all_of(open(other).train, "x")));
}

TEST_F(TableSource, ThePipelineLearnsFromTheTrainingPartAlone) {
  const Params params = {{"file", people_}, {"target", "price"}, {"ignore", "species"}};
  std::map<int, std::string> others;
  for (const auto part : {&data::Splits::test, &data::Splits::validation})
    for (const float id : ids(params, part))
      others[static_cast<int>(id)] = fmt::format("{},1000000,-5,Atlantis,true,1999-01-01,7,3,setosa,1.5", id);
  ASSERT_EQ(others.size(), 140u);
  Params changed = params;
  changed["file"] = write("changed.csv", people(others));
  const data::Splits a = open(params), b = open(changed);
  EXPECT_TRUE(same_bits(all_of(a.train, "x"), all_of(b.train, "x")));
  EXPECT_TRUE(same_bits(all_of(a.train, "y"), all_of(b.train, "y")));
  EXPECT_EQ(a.train->input_spec(), b.train->input_spec());
  EXPECT_FALSE(same_bits(all_of(a.test, "x"), all_of(b.test, "x")));
  // A city that training data lack is none of theirs.
  const auto names = spec_of(b.train)["features"].get<std::vector<std::string>>();
  const auto width = static_cast<int64_t>(names.size());
  const Tensor x = all_of(b.test, "x");
  for (int64_t c = 0; c < width; ++c)
    EXPECT_TRUE(!names[static_cast<size_t>(c)].starts_with("city=") || x.at(c) == 0) << names[static_cast<size_t>(c)];
}

TEST_F(TableSource, WhatComesInIsWhatTrainingSaw) {
  const Params params = {{"file", people_}, {"target", "species"}};
  const data::Splits s = open(params);
  const data::Input in = input(s.train, people_);
  EXPECT_EQ(in.data->size(), kRows);
  EXPECT_EQ(in.label_name, "row");
  EXPECT_EQ(in.labels.front(), "0");
  EXPECT_EQ(in.labels.back(), "499");
  for (const auto part : {&data::Splits::train, &data::Splits::validation, &data::Splits::test}) {
    std::vector<int64_t> rows;
    for (const float id : ids(params, part)) rows.push_back(static_cast<int64_t>(id));
    const data::Batch batch = in.data->read(rows).value();
    EXPECT_TRUE(same_bits(batch.at("x"), all_of(s.*part, "x")));
    EXPECT_TRUE(same_bits(batch.at("y"), all_of(s.*part, "y")));
  }
  // The same rows in other formats, with the columns in another order, and others beside them.
  const Table table = read_table(people_).value();
  for (const char* name : {"b.parquet", "b.arrow", "b.tsv"}) {
    const Table turned = table->SelectColumns({9, 8, 7, 6, 5, 4, 3, 2, 1, 0}).ValueOrDie();
    ASSERT_TRUE(write_table(*turned, at(name)).ok());
    EXPECT_TRUE(same_bits(all_of(input(s.train, at(name)).data, "x"), all_of(in.data, "x"))) << name;
  }
}

TEST_F(TableSource, NewFilesMayDifferInWhatTypesTheyShow) {
  std::string text = "code,size,ok,when,y\n";
  for (int i = 0; i < 40; ++i)
    text += fmt::format("{},{},{},2024-01-{:02} 10:00:00,{}\n", i % 2 ? "007" : "A1", i, i % 3 ? "true" : "false",
                        1 + i % 28, i * 0.5);
  const data::Splits s = open({{"file", write("a.csv", text)},
                               {"target", "y"},
                               {"pipeline", "dates, impute, one_hot"},
                               {"test_fraction", "0"},
                               {"validation_fraction", "0"}});
  EXPECT_EQ(s.validation, nullptr);
  EXPECT_EQ(s.test, nullptr);
  EXPECT_THAT(spec_of(s.train)["features"].get<std::vector<std::string>>(),
              ElementsAre("size", "ok", "when_year", "when_month", "when_day", "when_day_of_week", "when_hour",
                          "code=007", "code=A1"));
  // Text that looks like a number stays text; numbers may have fractions, or all be missing; dates without a time.
  const data::Input in = input(s.train, write("b.csv", "when,ok,size,code\n2024-01-02,true,2.5,007\n2024-01-02,,,\n"));
  EXPECT_EQ(in.data->find("y"), nullptr);
  EXPECT_THAT(values(all_of(in.data, "x")), ElementsAre(2.5, 1, 2024, 1, 2, 1, 0, 1, 0,  //
                                                        19.5, 1, 2024, 1, 2, 1, 0, 1, 0));
  EXPECT_THAT(input_error(s.train, write("c.csv", "when,ok,size,code\n2024-01-02,true,big,007\n")),
              AllOf(HasSubstr("c.csv"), HasSubstr("double"), HasSubstr("'big'")));
  EXPECT_THAT(
      input_error(s.train,
                  write("c.jsonl", R"({"when": "2024-01-02 10:00:00", "ok": true, "size": "big", "code": "007"})")),
      AllOf(HasSubstr("c.jsonl"), HasSubstr("column 'size' is string, in training data it was double")));
  EXPECT_THAT(
      input_error(s.train, write("d.csv", "When,okay,size,code\n2024-01-02,true,1,007\n")),
      HasSubstr("d.csv' lacks 2 columns that training data had: 'ok' (did you mean 'okay'?), 'when' (did you mean "
                "'When'?); it has When, okay, size, code"));
  EXPECT_THAT(input_error(s.train, at("none.csv")), HasSubstr("none.csv"));
  EXPECT_THAT(input_error(s.train, write("e.csv", "when,ok,size,code\n")), HasSubstr("e.csv' has no rows"));
}

TEST_F(TableSource, TargetsOfNewFilesCountWhereAllOfThemAreKnown) {
  const DatasetPtr train = open({{"file", people_}, {"target", "species"}, {"columns", "age"}}).train;
  EXPECT_THAT(labels(all_of(input(train, write("a.csv", "age,species\n30,setosa\n31,virginica\n")).data, "y")),
              ElementsAre(0, 2));
  for (const char* text :
       {"age\n30\n", "age,species\n30,\n", "age,species\n30,setosa\n31,\n", "age,species\n30,rosa\n"})
    EXPECT_EQ(input(train, write("b.csv", text)).data->find("y"), nullptr) << text;
  const DatasetPtr prices = open({{"file", people_}, {"target", "price"}, {"columns", "age"}}).train;
  EXPECT_THAT(values(all_of(input(prices, write("c.csv", "age,price\n30,7\n31,8\n")).data, "y")), ElementsAre(7, 8));
  EXPECT_EQ(input(prices, write("d.csv", "age,price\n30,cheap\n")).data->find("y"), nullptr);
}

TEST_F(TableSource, GroupsStayTogether) {
  const Params params = {{"file", people_}, {"target", "price"}, {"group", "shop"}, {"pipeline", "impute"}};
  Params seen = params;
  seen["columns"] = "shop";
  const data::Splits s = open(seen);
  std::set<float> shops;
  size_t number = 0;
  for (const DatasetPtr& part : {s.train, s.validation, s.test}) {
    const std::vector<float> x = values(all_of(part, "x"));
    const std::set<float> own(x.begin(), x.end());
    number += own.size();
    shops.insert(own.begin(), own.end());
  }
  EXPECT_EQ(shops.size(), number);
  EXPECT_NEAR(static_cast<double>(s.test->size()), 100, 20);
  Params unseen = params;
  unseen["ignore"] = "id, city, joined, species";
  EXPECT_THAT(spec_of(open(unseen).train)["features"].get<std::vector<std::string>>(),
              ElementsAre("age", "income", "member", "day"));
}

TEST_F(TableSource, TimePutsTheLastRowsIntoTheTestPart) {
  const data::Splits s =
      open({{"file", people_}, {"target", "price"}, {"time", "day"}, {"columns", "day"}, {"pipeline", "impute"}});
  const auto bounds = [](const DatasetPtr& part) {
    const std::vector<float> x = values(all_of(part, "x"));
    EXPECT_TRUE(std::is_sorted(x.begin(), x.end()));
    return std::pair(x.front(), x.back());
  };
  EXPECT_EQ(bounds(s.train), std::pair(0.0f, 359.0f));
  EXPECT_EQ(bounds(s.validation), std::pair(360.0f, 399.0f));
  EXPECT_EQ(bounds(s.test), std::pair(400.0f, 499.0f));
}

TEST_F(TableSource, StratifiesByWhatItIsTold) {
  const Params params = {{"file", people_},      {"target", "price"},     {"stratify", "species"},
                         {"columns", "species"}, {"pipeline", "one_hot"}, {"test_fraction", "0.5"}};
  const Tensor x = all_of(open(params).test, "x");
  double setosa = 0;
  for (int64_t i = 0; i < 250; ++i) setosa += x.at(i * 3);
  EXPECT_NEAR(setosa, 62.5, 1);
  Params both = params;
  both["group"] = "shop";
  EXPECT_THAT(error(both), HasSubstr("at most one of stratify, group and time"));
  both["stratify"] = "false";
  EXPECT_EQ(error(both), "no error");
}

TEST_F(TableSource, ASecondFileIsTheTestPart) {
  const std::string test = write("test.csv", "price,city,age,species\n1.5,Paris,30,setosa\n2.5,Oslo,,virginica\n");
  const Params params = {
      {"file", people_}, {"test", test}, {"target", "price"}, {"columns", "age, city"}, {"validation_fraction", "0.2"}};
  const data::Splits s = open(params);
  EXPECT_EQ(s.train->size(), 400);
  EXPECT_EQ(s.validation->size(), 100);
  EXPECT_THAT(values(all_of(s.test, "y")), ElementsAre(1.5, 2.5));
  EXPECT_TRUE(same_bits(all_of(s.test, "x"), all_of(input(s.train, test).data, "x")));
  Params both = params;
  both["test_fraction"] = "0.1";
  EXPECT_THAT(error(both), HasSubstr("give one of them"));
  Params unknown = params;
  unknown["target"] = "species";
  unknown["test"] = write("rosa.csv", "age,city,species\n30,Paris,setosa\n30,Paris,rosa\n");
  EXPECT_THAT(error(unknown),
              AllOf(HasSubstr("target 'species' has a label that training data lacks: 'rosa' in row 1 of "),
                    HasSubstr("rosa.csv")));
  unknown["test"] = write("less.csv", "age,city\n30,Paris\n");
  EXPECT_THAT(error(unknown), AllOf(HasSubstr("less.csv': target: there is no column 'species'")));
}

TEST_F(TableSource, SeveralTargetsAndRowsThatStepsLeaveOut) {
  std::string text = "a,species,price/m2\n";
  for (int i = 0; i < 60; ++i) text += fmt::format("{},{},{}\n", i, i % 2 ? "u" : "v", 0.5 * i);
  text += text.substr(text.find('\n') + 1);  // each row twice
  const Params params = {{"file", write("a.csv", text)},
                         {"target", "species,price/m2"},
                         {"pipeline", "duplicates, impute"},
                         {"test_fraction", "0"},
                         {"validation_fraction", "0"}};
  const DatasetPtr train = open(params).train;
  EXPECT_EQ(train->size(), 60);
  const std::vector<float> x = values(all_of(train, "x")), price = values(all_of(train, "price_m2"));
  const std::vector<int64_t> species = labels(all_of(train, "species"));
  for (size_t i = 0; i < 60; ++i) {
    EXPECT_EQ(x[i], static_cast<float>(i));
    EXPECT_EQ(price[i], 0.5f * static_cast<float>(i));
    EXPECT_EQ(species[i], i % 2 ? 0 : 1);
  }
  const data::Input in = input(train, params.at("file"));
  EXPECT_EQ(in.data->size(), 120);  // new data keep all rows
  EXPECT_NE(in.data->find("price_m2"), nullptr);
  Params tasks = params;
  tasks["task"] = "classification, classification";
  EXPECT_EQ(open(tasks).train->find("price_m2")->num_classes(), 60);
  tasks["task"] = "classification, regression, auto";
  EXPECT_THAT(error(tasks), HasSubstr("one for each of the 2 targets, got 3"));
  EXPECT_THAT(error({{"file", write("x.csv", "x,z,a\n1,2,3\n")}, {"target", "x,z"}}),
              HasSubstr("target 'x' would be named 'x', which is taken; rename the column"));
  EXPECT_THAT(error({{"file", write("x.csv", "a,b/c,b_c\n1,2,3\n")}, {"target", "b/c,b_c"}}),
              HasSubstr("'b_c' would be named 'b_c', which is taken"));
  Params encoded = params;
  encoded["pipeline"] = "target";
  EXPECT_THAT(error(encoded), HasSubstr("name the column to be predicted by the option `target`"));
}

TEST_F(TableSource, ClassesOrNumbers) {
  const auto classes = [&](const std::vector<std::string>& y) -> std::string {
    std::string text = "x,y\n";
    for (size_t i = 0; i < y.size(); ++i) text += fmt::format("{},{}\n", i, y[i]);
    const DatasetPtr train = open({{"file", write("y.csv", text)},
                                   {"target", "y"},
                                   {"pipeline", "impute"},
                                   {"test_fraction", "0"},
                                   {"validation_fraction", "0"}})
                                 .train;
    return train->find("y")->is_classes() ? join(train->find("y")->class_names, " ") : "numbers";
  };
  EXPECT_EQ(classes({"2", "10", "1", "10", "2", "1"}), "1 2 10");
  EXPECT_EQ(classes({"-1", "1", "1", "-1"}), "-1 1");
  EXPECT_EQ(classes({"-1", "1", "0", "-1", "1", "0"}), "numbers");
  EXPECT_EQ(classes({"3", "1", "2", "1"}), "numbers");  // once each, nearly
  EXPECT_EQ(classes({"0.0", "1.0", "0.0", "1.0"}), "numbers");
  EXPECT_EQ(classes({"b", "a", "10", "9"}), "10 9 a b");
  EXPECT_EQ(classes({"true", "false", "true"}), "false true");
  std::vector<std::string> many;
  for (int i = 0; i < 63; ++i) many.push_back(std::to_string(i % 21));
  EXPECT_EQ(classes(many), "numbers");
  for (std::string& v : many) v = std::to_string(std::stoi(v) % 20);
  EXPECT_EQ(classes(many), "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19");
  const auto of = [](std::shared_ptr<arrow::Array> array, const std::string& task) {
    return is_classification("y", std::make_shared<arrow::ChunkedArray>(std::move(array)), task);
  };
  arrow::DoubleBuilder reals;
  ASSERT_TRUE(reals.AppendValues({2.0, 0.5, 2.0, std::nan(""), 10.0}).ok());
  const auto floats = reals.Finish().ValueOrDie();
  EXPECT_TRUE(of(floats, "classification").value());
  EXPECT_FALSE(of(floats, "auto").value());
  EXPECT_THAT(labels_of("y", std::make_shared<arrow::ChunkedArray>(floats)).value(), ElementsAre("0.5", "2", "10"));
  arrow::StringBuilder words;
  ASSERT_TRUE(words.AppendValues({"a"}).ok());
  EXPECT_THAT(of(words.Finish().ValueOrDie(), "regression").status().message(),
              HasSubstr("target 'y' is text, expected numbers for regression"));
  arrow::Date32Builder days;
  ASSERT_TRUE(days.Append(1).ok());
  EXPECT_THAT(of(days.Finish().ValueOrDie(), "auto").status().message(),
              HasSubstr("'y' is date32[day], expected numbers"));
}

TEST_F(TableSource, CategoriesOfArrow) {
  const Table table = read_table(people_, {.types = {{"city", "category"}, {"species", "category"}}}).value();
  ASSERT_TRUE(write_table(*table, at("c.arrow")).ok());
  ASSERT_EQ(read_table(at("c.arrow")).value()->GetColumnByName("city")->type()->id(), arrow::Type::DICTIONARY);
  const Params params = {{"file", people_}, {"target", "species"}};
  Params categories = params;
  categories["file"] = at("c.arrow");
  const DatasetPtr a = open(params).train, b = open(categories).train;
  EXPECT_TRUE(same_bits(all_of(a, "x"), all_of(b, "x")));
  EXPECT_TRUE(same_bits(all_of(a, "y"), all_of(b, "y")));
  EXPECT_TRUE(same_bits(all_of(input(b, people_).data, "x"), all_of(input(a, at("c.arrow")).data, "x")));
}

TEST_F(TableSource, RowsWithoutATargetAreLeftOut) {
  const std::string file = write("a.csv", "a,y\n1,1.5\n2,\n3,NaN\n4,2.5\n5,3.5\n");
  Params params = {{"file", file}, {"target", "y"}, {"pipeline", "impute"}, {"test_fraction", "0"}};
  ::testing::internal::CaptureStderr();
  const DatasetPtr train = open(params).train;
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              HasSubstr("a.csv': 2 of 5 rows have no value of 'y', and are left out"));
  EXPECT_THAT(values(all_of(train, "x")), ElementsAre(1, 4, 5));
  params["drop_missing_target"] = "false";
  EXPECT_THAT(error(params),
              HasSubstr("2 of 5 rows have no value of 'y', the first is row 1; drop_missing_target: true"));
  params["drop_missing_target"] = "perhaps";
  EXPECT_THAT(error(params), HasSubstr("'drop_missing_target' is 'perhaps', expected true or false"));
  EXPECT_THAT(error({{"file", write("b.csv", "a,y\n1,\n2,\n")}, {"target", "y"}}),
              HasSubstr("2 of 2 rows have no value"));
}

TEST_F(TableSource, PipelinesAreListsJsonOrFiles) {
  const Params params = {{"file", people_}, {"target", "price"}, {"columns", "age, city"}};
  const auto with = [&](const std::string& pipeline) {
    Params p = params;
    p["pipeline"] = pipeline;
    return p;
  };
  const Tensor x = all_of(open(with("impute, scale, one_hot")).train, "x");
  const auto same = [&](const std::string& pipeline) { return same_bits(all_of(open(with(pipeline)).train, "x"), x); };
  EXPECT_TRUE(same(R"(["impute", {"scale": {"method": "standard"}}, "one_hot"])"));
  EXPECT_TRUE(same(R"({"steps": ["impute", "scale", "one_hot"], "target": "price"})"));
  EXPECT_TRUE(same(write("p.yaml", "target: price\nsteps:\n  - impute: {strategy: median}\n  - scale\n  - one_hot\n")));
  EXPECT_FALSE(same(R"(["impute", {"scale": {"method": "minmax"}}, "one_hot"])"));
  // A fitted one is used as it is.
  const data::Splits s = open(with("impute, scale, one_hot"));
  const std::string fitted = spec_of(s.train)["pipeline"].dump();
  const data::Splits again = open(with(write("p.json", fitted)));
  EXPECT_TRUE(same_bits(all_of(again.train, "x"), x));
  EXPECT_EQ(spec_of(again.train)["pipeline"].dump(), fitted);
  Params seed = with(at("p.json"));
  seed["seed"] = "5";
  EXPECT_EQ(spec_of(open(seed).train)["pipeline"].dump(), fitted);
  EXPECT_TRUE(same(fitted));

  EXPECT_THAT(error(with("impute, scales")),
              HasSubstr("unknown step 'scales'; did you mean 'scale'? There are types, leakage"));
  EXPECT_THAT(error(with(R"([{"scale": {"methd": "minmax"}}])")), HasSubstr("did you mean 'method'?"));
  EXPECT_THAT(error(with("[impute")), HasSubstr("pipeline: expected JSON, got [impute"));
  EXPECT_THAT(error(with(at("none.yaml"))), HasSubstr("none.yaml"));
  EXPECT_THAT(error(with(write("q.yaml", "target: age\nsteps: [impute]\n"))),
              HasSubstr("its target is age, the data's is price"));
  EXPECT_THAT(error(with(R"(["impute", {"scale": {"columns": ["age", "price"]}}, "one_hot"])")),
              AllOf(HasSubstr("it changes the target, which new data do not have"), HasSubstr("leave 'price' out")));
  // What leaves something that is no finite number says what helps.
  EXPECT_THAT(error(with("impute")),
              HasSubstr("column 'city' is string behind the pipeline, models take numbers; add the step one_hot"));
  EXPECT_THAT(error(with("one_hot")), AllOf(HasSubstr("column 'age' has no value in row "), HasSubstr("people.csv'"),
                                            HasSubstr("add the step impute")));
  Params dates = with("impute");
  dates["columns"] = "joined";
  EXPECT_THAT(error(dates),
              HasSubstr("'joined' is date32[day] behind the pipeline, models take numbers; add the step dates"));
}

TEST_F(TableSource, WhatIsNotFiniteIsNamed) {
  const auto of = [&](const std::string& value) {
    std::string text = "a,y\n";
    for (int i = 0; i < 20; ++i) text += fmt::format("{},{}\n", i == 7 ? value : "1.5", i * 0.5);
    return error({{"file", write("a.csv", text)},
                  {"target", "y"},
                  {"pipeline", "impute"},
                  {"test_fraction", "0"},
                  {"validation_fraction", "0"}});
  };
  EXPECT_THAT(of("inf"), AllOf(HasSubstr("column 'a' is infinite in row 7 of '"), HasSubstr("outliers")));
  EXPECT_THAT(of("1e60"),
              AllOf(HasSubstr("column 'a' is 1e+60, beyond what f32 holds, in row 7 of '"), HasSubstr("scale")));
  std::string text = "a,y\n1,2.5\n2,inf\n3,1.5\n";
  EXPECT_THAT(
      error({{"file", write("b.csv", text)}, {"target", "y"}, {"test_fraction", "0"}, {"validation_fraction", "0"}}),
      HasSubstr("target 'y' is inf in row 1 of '"));
}

TEST_F(TableSource, LabelsThatOnlyLaterRowsHaveAreNamed) {
  std::string text = "t,y\n";
  for (int i = 0; i < 50; ++i) text += fmt::format("{},{}\n", i, i == 49 ? "new" : i % 2 ? "a" : "b");
  const std::string message = error({{"file", write("a.csv", text)}, {"target", "y"}, {"time", "t"}});
  EXPECT_THAT(message, AllOf(HasSubstr("target 'y' has a label that training data lacks: 'new' in row 49 of "),
                             HasSubstr("in the test part; share labels out by stratify")));
}

TEST_F(TableSource, ColumnsWithoutValuesAndOfOneValue) {
  std::string text = "a,none,one,y\n";
  for (int i = 0; i < 40; ++i) text += fmt::format("{},,5,{}\n", i, i * 0.5);
  const data::Splits s = open({{"file", write("a.csv", text)}, {"target", "y"}});
  EXPECT_THAT(spec_of(s.train)["features"].get<std::vector<std::string>>(), ElementsAre("a"));
  EXPECT_EQ(input(s.train, write("b.csv", "a,one\n1,5\n")).data->size(), 1);
  EXPECT_THAT(error({{"file", at("a.csv")}, {"target", "y"}, {"columns", "none"}}),
              HasSubstr("no column is left as input"));
  EXPECT_THAT(error({{"file", at("a.csv")}, {"target", "y"}, {"columns", "one"}}),
              HasSubstr("the pipeline leaves no column"));
  EXPECT_THAT(error({{"file", at("a.csv")}, {"target", "none"}}), HasSubstr("40 of 40 rows have no value of 'none'"));
}

TEST_F(TableSource, OptionsOfFiles) {
  std::string text;
  for (int i = 0; i < 20; ++i) text += fmt::format("0{};{};-\n", i % 3, i * 0.5);
  const Params params = {{"file", write("a.data", text)},
                         {"format", "csv"},
                         {"delimiter", ";"},
                         {"header", "false"},
                         {"null_values", "-"},
                         {"types", R"({"f0": "string"})"},
                         {"target", "f1"}};
  const DatasetPtr train = open(params).train;
  EXPECT_THAT(spec_of(train)["features"].get<std::vector<std::string>>(), ElementsAre("f0=00", "f0=01", "f0=02"));
  // Further files are read like this one; what has a name of its own says what it is.
  EXPECT_THAT(values(all_of(input(train, write("b.data", "01;7;-\n")).data, "x")), ElementsAre(0, 1, 0));
  EXPECT_THAT(values(all_of(input(train, write("c.jsonl", R"({"f0": "02"})")).data, "x")), ElementsAre(0, 0, 1));
  Params wrong = params;
  wrong["types"] = "f0";
  EXPECT_THAT(error(wrong), HasSubstr("types: expected a type for each column"));
  wrong["types"] = R"({"f0": "strin"})";
  EXPECT_THAT(error(wrong), HasSubstr("did you mean 'string'?"));
}

TEST_F(TableSource, WrongKeysAreExplained) {
  const Params params = {{"file", people_}, {"target", "price"}};
  const auto with = [&](const std::string& key, const std::string& value) {
    Params p = params;
    p[key] = value;
    return error(p);
  };
  EXPECT_THAT(error({{"file", people_}}), HasSubstr("needs the parameter 'target'"));
  EXPECT_THAT(with("targt", "x"), HasSubstr("has no parameter 'targt'; did you mean 'target'?"));
  EXPECT_THAT(with("target", "prise"),
              AllOf(HasSubstr("people.csv': target: there is no column 'prise'"), HasSubstr("'price'")));
  EXPECT_THAT(with("target", " "), HasSubstr("target is empty"));
  EXPECT_THAT(with("target", "price,price"), HasSubstr("'price' is there twice"));
  EXPECT_THAT(with("target", R"(["price", 1])"), HasSubstr("target: expected a list of names"));
  EXPECT_EQ(with("target", R"(["price"])"), "no error");
  EXPECT_THAT(with("columns", "agee"), AllOf(HasSubstr("columns: there is no column 'agee'"), HasSubstr("'age'")));
  EXPECT_THAT(with("columns", "price"), HasSubstr("columns: 'price' is a target"));
  EXPECT_THAT(with("ignore", "idd"), HasSubstr("ignore: there is no column 'idd'"));
  EXPECT_THAT(with("ignore", "price"), HasSubstr("ignore: 'price' is the target"));
  EXPECT_THAT(with("group", "shops"), AllOf(HasSubstr("group: there is no column 'shops'"), HasSubstr("'shop'")));
  EXPECT_THAT(with("time", "days"), HasSubstr("time: there is no column 'days'"));
  EXPECT_THAT(with("task", "clasification"), HasSubstr("expected auto, classification or regression"));
  EXPECT_THAT(with("test_fraction", "1"), HasSubstr("test_fraction is 1, expected a value in [0, 1)"));
  EXPECT_THAT(with("validation_fraction", "-0.1"), HasSubstr("validation_fraction is -0.1"));
  EXPECT_THAT(with("seed", "x"), HasSubstr("'seed' is 'x'"));
  EXPECT_THAT(with("file", at("none.csv")), HasSubstr("none.csv"));
  EXPECT_THAT(with("file", write("none.xyz", "a\n")), HasSubstr("name the format: csv, tsv, jsonl, parquet or arrow"));
  EXPECT_THAT(error({{"file", write("few.csv", "a,y\n1,0.5\n2,1.5\n")}, {"target", "y"}}),
              AllOf(HasSubstr("would be empty"), HasSubstr("few.csv' is split into training, test parts")));
}

TEST_F(TableSource, DamagedSpecsAreErrors) {
  const DatasetPtr train = open({{"file", people_}, {"target", "price"}}).train;
  const Json spec = spec_of(train);
  EXPECT_EQ(spec["source"], "table");
  for (const char* key : {"pipeline", "columns", "features", "targets", "options"}) {
    Json damaged = spec;
    damaged.erase(key);
    const auto in = data::open_input(damaged.dump(), people_);
    EXPECT_EQ(in.status().code(), ErrorCode::kDataCorrupt) << key;
    EXPECT_THAT(in.status().message(), HasSubstr(key));
  }
  Json other = spec;
  other["features"].push_back("more");
  EXPECT_THAT(data::open_input(other.dump(), people_).status().message(), HasSubstr("the pipeline made the features"));
}

TEST(PipelineJson, KeepsSeveralTargetsAndAllBits) {
  std::vector<std::shared_ptr<arrow::Field>> fields;
  std::vector<std::shared_ptr<arrow::Array>> columns;
  for (const char* name : {"a", "y", "z"}) {
    arrow::DoubleBuilder builder;
    for (int i = 0; i < 9; ++i) ASSERT_TRUE(builder.Append(std::sqrt(i + columns.size())).ok());
    fields.push_back(arrow::field(name, arrow::float64()));
    columns.push_back(builder.Finish().ValueOrDie());
  }
  const Table table = arrow::Table::Make(arrow::schema(fields), columns);
  Pipeline p = Pipeline::parse("target: [y, z]\nsteps: [impute, scale]\n", "here").value();
  EXPECT_THAT(p.targets(), ElementsAre("y", "z"));
  EXPECT_FALSE(p.to_json().ok());
  const Table made = p.fit_transform(table).value();
  EXPECT_TRUE(made->column(1)->Equals(*table->column(1)));
  EXPECT_TRUE(made->column(2)->Equals(*table->column(2)));
  EXPECT_FALSE(made->column(0)->Equals(*table->column(0)));
  const Pipeline back = Pipeline::from_json(p.to_json().value(), "there").value();
  EXPECT_THAT(back.targets(), ElementsAre("y", "z"));
  ASSERT_EQ(back.inputs().size(), 1u);
  EXPECT_EQ(back.inputs()[0].name, "a");
  const Table served = back.transform(table->SelectColumns({0}).ValueOrDie()).value();
  EXPECT_TRUE(served->column(0)->Equals(*made->column(0)));
  EXPECT_THAT(Pipeline::from_json(Json{{"format", "x"}}, "there").status().message(),
              HasSubstr("'there' is no pipeline"));
}

}  // namespace
}  // namespace deepseek::tables
