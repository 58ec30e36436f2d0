#include "base/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace deepseek {
namespace {

using ::testing::HasSubstr;

struct Inner {
  double rate = 0.5;
  std::string name = "sgd";
  OptionTable::FreeMap rest;
  void describe(OptionTable& t) {
    t.field("rate", rate, {.doc = "step size", .min = 0, .max = 1});
    t.field("name", name, {.doc = "rule", .choices = {"sgd", "adam"}});
    t.rest(rest, "whatever else the rule takes");
  }
};

struct Outer {
  int64_t epochs = 4;
  bool shuffle = true;
  std::string output = "runs/a";
  std::vector<std::string> metrics;
  Inner inner;
  void describe(OptionTable& t) {
    t.field("epochs", epochs, {.doc = "passes", .min = 1});
    t.field("shuffle", shuffle, {.doc = "order at random"});
    t.field("output", output, {.doc = "folder"});
    t.field("metrics", metrics, {.doc = "what to measure"});
    t.group("inner", inner, "a group");
  }
};

struct Fixture {
  Outer options;
  OptionTable table;
  Fixture() { options.describe(table); }
  std::string load(std::string_view text) { return table.load_yaml(text, "run.yaml").to_string(); }
};

TEST(Options, ReadsEveryKindOfValue) {
  Fixture f;
  ASSERT_EQ(f.load("epochs: 7\nshuffle: false\noutput: here\nmetrics: [a, b]\n"
                   "inner:\n  rate: 1e-2\n  name: adam\n  beta: 0.9\n"),
            "ok");
  EXPECT_EQ(f.options.epochs, 7);
  EXPECT_FALSE(f.options.shuffle);
  EXPECT_EQ(f.options.output, "here");
  EXPECT_EQ(f.options.metrics, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(f.options.inner.rate, 0.01);
  EXPECT_EQ(f.options.inner.name, "adam");
  EXPECT_EQ(f.options.inner.rest, (OptionTable::FreeMap{{"beta", "0.9"}}));
}

TEST(Options, EmptyTextAndEmptyGroupsKeepDefaults) {
  for (const char* text : {"", "# nothing\n", "inner:\n"}) {
    Fixture f;
    EXPECT_EQ(f.load(text), "ok");
    EXPECT_EQ(f.options.epochs, 4);
  }
}

TEST(Options, AllMistakesAtOnceEachWithItsPlace) {
  Fixture f;
  EXPECT_EQ(f.load("epochz: 3\nepochs: many\ninner:\n  rate: 2\n  name: adan\nshuffle: yes\nmetrics: x\n"),
            "run.yaml:1:1: unknown key 'epochz'; did you mean 'epochs'?\n"
            "run.yaml:2:9: 'epochs' expected an integer >= 1, got 'many'\n"
            "run.yaml:4:9: 'inner.rate' expected a number in [0, 1], got '2'\n"
            "run.yaml:5:9: 'inner.name' expected one of sgd, adam, got 'adan'; did you mean 'adam'?\n"
            "run.yaml:6:10: 'shuffle' expected true or false, got 'yes'\n"
            "run.yaml:7:10: 'metrics' expected a list, got 'x'");
}

TEST(Options, GoodKeysBesideBadOnesAreTaken) {
  Fixture f;
  EXPECT_THAT(f.load("epochs: 9\noutputt: x\n"), HasSubstr("did you mean 'output'?"));
  EXPECT_EQ(f.options.epochs, 9);
}

TEST(Options, UnknownKeyFarFromAllListsWhatIsKnown) {
  Fixture f;
  EXPECT_EQ(f.load("qwertzuiop: 1"),
            "run.yaml:1:1: unknown key 'qwertzuiop'; known here: epochs, shuffle, output, metrics, inner");
}

TEST(Options, KeysOfTheWrongShape) {
  Fixture f;
  EXPECT_EQ(f.load("inner: 3"), "run.yaml:1:8: 'inner' expected a map of keys, got '3'");
  EXPECT_EQ(f.load("epochs: [1]"), "run.yaml:1:9: 'epochs' expected an integer >= 1, got a list");
  EXPECT_EQ(f.load("inner: {beta: }"), "run.yaml:1:15: 'inner.beta' expected a value, got nothing");
  EXPECT_EQ(f.load("metrics: [[1]]"), "run.yaml:1:11: 'metrics' expected a list of values, got a list in it");
  EXPECT_EQ(f.load("epochs: 1\nepochs: 2"), "run.yaml:2:1: 'epochs' is given twice");
  EXPECT_EQ(f.load("- a\n- b"), "run.yaml:1:1: expected 'key: value' lines, got a list");
  EXPECT_EQ(f.load("[a]: 1"), "run.yaml:1:1: expected a key of plain text");
}

TEST(Options, NumbersAreReadWhole) {
  Fixture f;
  for (const char* text : {"1.5", "1e3", "9223372036854775808", "0x10", "", "7 8"})
    EXPECT_THAT(f.load(std::string("epochs: '") + text + "'"), HasSubstr("'epochs' expected an integer >= 1")) << text;
  for (const char* text : {"nan", "inf", "1e999", ".5.", "-0.1"})
    EXPECT_THAT(f.load(std::string("inner: {rate: ") + text + "}"), HasSubstr("expected a number in [0, 1]")) << text;
  EXPECT_EQ(f.options.epochs, 4);
  EXPECT_EQ(f.options.inner.rate, 0.5);
}

TEST(Options, SyntaxErrorsChangeNothing) {
  Fixture f;
  EXPECT_THAT(f.load("epochs: 8\ninner: {"), HasSubstr("not valid YAML"));
  EXPECT_EQ(f.options.epochs, 4);
}

TEST(Options, HostileTextIsRefusedBeforeItIsParsed) {
  Fixture f;
  for (const char* nested : {"[", "{a: ", "- ", "? "}) {
    std::string text;
    for (int i = 0; i < 50000; ++i) text += nested;
    EXPECT_THAT(f.load(text), HasSubstr("not valid YAML")) << nested;
  }
  EXPECT_THAT(f.load(std::string((1 << 20) + 1, ' ')), HasSubstr("the limit is 1048576"));
  EXPECT_EQ(f.load("inner:\n  " + std::string(201, 'k') + ": 1"),
            "run.yaml:2:3: expected a key of at most 200 bytes, got 201");
  EXPECT_EQ(f.load("output: \xFF"), "run.yaml: byte 8 is not UTF-8; save the config as UTF-8 text");
  EXPECT_EQ(f.table.set(std::string(99, '.') + "=1", "--set").message(), "--set: more than 32 keys in the path");
}

TEST(Options, SetTakesAPathAndAValue) {
  Fixture f;
  EXPECT_TRUE(f.table.set("inner.rate=0.25", "--set").ok());
  EXPECT_TRUE(f.table.set("metrics=[auc, f1]", "--set").ok());
  EXPECT_TRUE(f.table.set("output=", "--set").ok());
  EXPECT_EQ(f.options.inner.rate, 0.25);
  EXPECT_EQ(f.options.metrics, (std::vector<std::string>{"auc", "f1"}));
  EXPECT_EQ(f.options.output, "");
  EXPECT_EQ(f.table.set("epochs", "--set").message(), "--set: expected key=value, got 'epochs'");
  EXPECT_EQ(f.table.set("=3", "--set").message(), "--set: expected key=value, got '=3'");
}

TEST(Options, MistakesInAnOverrideHaveNoPosition) {
  Fixture f;
  EXPECT_EQ(f.table.set("epoch=1", "--set").message(), "--set: unknown key 'epoch'; did you mean 'epochs'?");
  EXPECT_EQ(f.table.set("epochs=0", "--set").message(), "--set: 'epochs' expected an integer >= 1, got '0'");
  EXPECT_EQ(f.table.set("metrics=[a", "--set").message(), "--set: not valid YAML: end of sequence flow not found");
  EXPECT_THAT(f.table.set("a: {b=c", "--set").message(), HasSubstr("unknown key 'a: {b'"));
  EXPECT_EQ(f.table.set("inner.a\xFF=1", "--set").message(), "--set: byte 7 is not UTF-8");
  EXPECT_EQ(f.table.set("inner..x=1", "--set").message(), "--set: expected a key of plain text");
}

TEST(Options, YamlReadsBackToTheSameValues) {
  Fixture f;
  f.options.epochs = 123456789012;
  f.options.shuffle = false;
  f.options.output = "a: \"b\"\n# c\\\t";
  f.options.metrics = {"x, y", "[z]", "", "true"};
  f.options.inner.rate = 0.1 + 0.2;
  f.options.inner.rest = {{"hidden", "64,32"},
                          {"note", "yes: no"},
                          {".x.y", "1"},
                          {"k: #[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "2"}};
  const std::string yaml = f.table.to_yaml();
  Fixture g;
  ASSERT_EQ(g.load(yaml), "ok") << yaml;
  EXPECT_EQ(g.options.epochs, f.options.epochs);
  EXPECT_EQ(g.options.shuffle, f.options.shuffle);
  EXPECT_EQ(g.options.output, f.options.output);
  EXPECT_EQ(g.options.metrics, f.options.metrics);
  EXPECT_EQ(g.options.inner.rate, f.options.inner.rate);
  EXPECT_EQ(g.options.inner.rest, f.options.inner.rest);
  EXPECT_EQ(g.table.to_yaml(), yaml);
}

TEST(Options, HelpNamesKeyMeaningDefaultAndRange) {
  Fixture f;
  EXPECT_THAT(f.table.help(), HasSubstr("epochs      passes (default 4; an integer >= 1)\n"));
  EXPECT_THAT(f.table.help(), HasSubstr("inner.name  rule (default \"sgd\"; one of sgd, adam)\n"));
  EXPECT_THAT(f.table.help(), HasSubstr("inner.*     whatever else the rule takes\n"));
}

TEST(Options, AnOptionalNumberIsAutoWithoutAValue) {
  std::optional<double> rate;
  OptionTable table;
  table.field("rate", rate, {.doc = "step size", .min = 0});
  EXPECT_EQ(table.to_yaml(), "rate: auto\n");
  EXPECT_THAT(table.help(), HasSubstr("rate  step size (default auto; a number >= 0 or auto)"));
  ASSERT_TRUE(table.set("rate=0.5", "test").ok());
  EXPECT_EQ(rate, 0.5);
  EXPECT_EQ(table.to_yaml(), "rate: 0.5\n");
  EXPECT_EQ(table.set("rate=-1", "test").message(), "test: 'rate' expected a number >= 0 or auto, got '-1'");
  ASSERT_TRUE(table.set("rate=auto", "test").ok());
  EXPECT_FALSE(rate.has_value());
}

// Nine aliases of nine aliases of ...: a few lines that stand for more values than there is memory for.
TEST(Options, AliasesDoNotMultiplyWithoutEnd) {
  JsonValue ranges;
  OptionTable table;
  table.field("ranges", ranges, {.doc = "anything"});
  std::string text = "ranges:\n  a0: &a0 [1, 2, 3]\n";
  for (int i = 1; i < 12; ++i) {
    text += fmt::format("  a{}: &a{} [", i, i);
    for (int k = 0; k < 9; ++k) text += fmt::format("{}*a{}", k > 0 ? ", " : "", i - 1);
    text += "]\n";
  }
  EXPECT_THAT(table.load_yaml(text, "run.yaml").message(), HasSubstr("more than 100000 values, aliases included"));
  ASSERT_TRUE(table.load_yaml("ranges:\n  a: &a [1, 2]\n  b: *a\n", "run.yaml").ok());
  EXPECT_EQ(ranges.text, R"({"a":[1,2],"b":[1,2]})");
}

TEST(Options, WhatIsNoFileIsAnError) {
  Fixture f;
  EXPECT_EQ(f.table.load_file("/no/such.yaml", {}).message(),
            "/no/such.yaml: no such file; its folder '/no' isn't there either");
  EXPECT_THAT(f.table.load_file("/dev/zero", {}).message(), HasSubstr("is a device, expected a file"));
}

}  // namespace
}  // namespace deepseek
