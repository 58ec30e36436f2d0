// Which features there are, and definitions that were damaged. Featuretools' own sets: tests/python/test_features.py
#include "features/define.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace deepseek::features {
namespace {

using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

tables::Table integers(const std::vector<std::string>& names) {
  std::vector<std::shared_ptr<arrow::Field>> fields;
  std::vector<std::shared_ptr<arrow::Array>> arrays;
  for (const std::string& name : names) {
    arrow::Int64Builder builder;
    EXPECT_TRUE(builder.AppendValues(std::vector<int64_t>{1, 2}).ok());
    arrays.push_back(builder.Finish().ValueOrDie());
    fields.push_back(arrow::field(name, arrow::int64()));
  }
  return arrow::Table::Make(arrow::schema(fields), arrays);
}

Entities shop() {
  Entities entities;
  EXPECT_TRUE(entities.add("customers", integers({"id"}), {.index = "id"}).ok());
  EXPECT_TRUE(entities.add("orders", integers({"id", "customer", "price"}), {.index = "id"}).ok());
  EXPECT_TRUE(entities.relate("orders", "customer", "customers").ok());
  return entities;
}

std::vector<std::string> names(const Definitions& definitions) {
  std::vector<std::string> list;
  for (const int f : definitions.targets()) list.push_back(definitions.features()[static_cast<size_t>(f)].name);
  return list;
}

TEST(Define, AggregationsOfChildrenButNotOfKeys) {
  const Entities entities = shop();
  const SynthesisOptions options{
      .target = "customers", .aggregations = {"count", "mean", "trend(unit=days)"}, .transforms = {}};
  EXPECT_THAT(names(Definitions::make(entities, options).value()),
              UnorderedElementsAre("COUNT(orders)", "MEAN(orders.price)"));
}

TEST(Define, WhatParentsHavePassesDownButNotBack) {
  const Entities entities = shop();
  const SynthesisOptions options{.target = "orders", .aggregations = {"sum", "count"}, .transforms = {}};
  EXPECT_THAT(names(Definitions::make(entities, options).value()),
              UnorderedElementsAre("customer", "price", "customers.COUNT(orders)", "customers.SUM(orders.price)"));
}

TEST(Define, ArgumentsAreReadAndWritten) {
  const Use use = parse_use("count_greater_than(threshold=2.5)", true).value();
  EXPECT_EQ(use.arguments, std::vector<double>{2.5});
  EXPECT_THAT(parse_use("count_greater_than(2)", true).status().message(), HasSubstr("expected name=value, got '2'"));
  EXPECT_THAT(parse_use("count_greater_than(threshold=many)", true).status().message(),
              HasSubstr("'many' is no number"));
  EXPECT_THAT(parse_use("count_greater_than(threshold=1", true).status().message(), HasSubstr("expected ')'"));
}

TEST(Define, JsonThereAndBack) {
  const Entities entities = shop();
  const SynthesisOptions options{
      .target = "customers", .aggregations = {"sum", "count", "max"}, .transforms = {"absolute"}, .depth = 3};
  const Definitions made = Definitions::make(entities, options).value();
  const Definitions back = Definitions::from_json(made.to_json(entities), entities).value();
  EXPECT_EQ(names(back), names(made));
  EXPECT_EQ(back.to_json(entities), made.to_json(entities));
}

TEST(Define, DamagedDefinitionsAreRefused) {
  const Entities entities = shop();
  const SynthesisOptions options{.target = "customers", .aggregations = {"sum", "count"}, .transforms = {}};
  const nlohmann::json good = Definitions::make(entities, options).value().to_json(entities);
  const auto refused = [&](const std::function<void(nlohmann::json&)>& damage) {
    nlohmann::json json = good;
    damage(json);
    return Definitions::from_json(json, entities).status().message();
  };
  const auto last = good["features"].size() - 1;
  EXPECT_THAT(refused([&](auto& j) { j["features"][last]["inputs"] = {99}; }),
              HasSubstr("feature 99 is not among those before it"));
  EXPECT_THAT(refused([&](auto& j) { j["features"][last]["inputs"] = {-1}; }), HasSubstr("feature -1 is not among"));
  EXPECT_THAT(refused([&](auto& j) { j["features"][last]["inputs"] = nlohmann::json::array(); }),
              HasSubstr("0 inputs, expected 1"));
  EXPECT_THAT(refused([&](auto& j) { j["features"][last].erase("path"); }), HasSubstr("is none of its kind"));
  EXPECT_THAT(refused([&](auto& j) { j["features"][last]["primitive"] = "summ"; }),
              HasSubstr("unknown aggregation 'summ'"));
  EXPECT_THAT(refused([&](auto& j) { j["features"][last]["path"][0][2] = true; }), HasSubstr("gap"));
  EXPECT_THAT(refused([&](auto& j) { j["features"][last]["kind"] = "sum"; }), HasSubstr("unknown kind"));
  EXPECT_THAT(refused([&](auto& j) { j["chosen"] = {7000}; }), HasSubstr("feature 7000"));
}

}  // namespace
}  // namespace deepseek::features
