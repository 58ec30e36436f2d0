// Describes a small piece of graph and finds it: by op, operands, attributes and conditions; parts get names.
//   const Pattern twice = op("transpose", {op("transpose", {any("x")}).uses(1)});
//   if (std::optional<Match> m = Matcher(graph).match(twice, value)) ... m->at("x") ...
// Operands of a commutative op match in either order. Matching changes nothing; passes/rewrite.h replaces what is
// found. Test: tests/graph/pattern_test.cc
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graph/graph.h"

namespace deepseek::graph {

// A value type: each of these functions returns a pattern that asks for more.
class Pattern {
 public:
  using Condition = std::function<bool(const Graph&, Value)>;

  // The value is Match::at(name). Two parts of one name must be one value.
  Pattern as(std::string name) const;
  // The attribute equals `value`, or fulfils the condition; only for op(). An attribute the op lacks never matches.
  Pattern attr(std::string name, AttrValue value) const;
  Pattern attr(std::string name, std::function<bool(const AttrValue&)> condition) const;
  // The value is read exactly `count` times, by nodes, outputs and updates.
  Pattern uses(int32_t count) const;
  // Which output of the op the value is; op() alone means the first.
  Pattern output(int32_t index) const;
  Pattern where(Condition condition) const;

 private:
  friend Pattern any(std::string name);
  friend Pattern op(std::string name);
  friend Pattern op(std::string name, std::vector<Pattern> operands);
  friend Pattern either(std::vector<Pattern> alternatives);
  friend class Matcher;

  std::string capture_, op_;  // no op: any value
  std::optional<std::vector<Pattern>> operands_;
  std::vector<Pattern> alternatives_;
  std::vector<std::pair<std::string, std::function<bool(const AttrValue&)>>> attrs_;
  std::vector<Condition> conditions_;
  std::optional<int32_t> uses_;
  int32_t output_ = 0;
};

Pattern any(std::string name = {});                           // any value, captured where a name is given
Pattern op(std::string name);                                 // with whatever operands
Pattern op(std::string name, std::vector<Pattern> operands);  // with exactly these
Pattern constant(double value);                               // a constant all of whose elements are `value`
Pattern either(std::vector<Pattern> alternatives);            // the first that matches

class Match {
 public:
  // The value captured as `name`; undefined where the matching alternative has no such part.
  Value at(std::string_view name) const;

 private:
  friend class Matcher;
  std::vector<std::pair<std::string, Value>> captures_;
};

// Counts uses once, then matches any number of patterns on one graph.
class Matcher {
 public:
  explicit Matcher(Graph graph) : graph_(std::move(graph)), uses_(graph_.use_counts()) {}
  // `pattern` with `value` as its root.
  std::optional<Match> match(const Pattern& pattern, Value value) const;

 private:
  using Next = std::function<bool()>;
  bool visit(const Pattern& p, Value v, Match& match, const Next& next) const;
  bool visit_operands(const Pattern& p, const std::vector<Value>& inputs, size_t i, Match& match,
                      const Next& next) const;

  Graph graph_;
  std::vector<int32_t> uses_;
};

}  // namespace deepseek::graph
