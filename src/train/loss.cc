#include "train/loss.h"

#include <algorithm>
#include <charconv>

#include "base/strings.h"
#include "ops/dsl.h"
#include "ops/registry.h"

namespace deepseek::train {

using namespace graph;

namespace {

struct Entry {
  const char* name;
  Task task;
};
constexpr Entry kLosses[] = {
    {"cross_entropy", Task::kMulticlass}, {"nll_loss", Task::kMulticlass},   {"mse_loss", Task::kRegression},
    {"l1_loss", Task::kRegression},       {"huber_loss", Task::kRegression}, {"quantile_loss", Task::kRegression},
    {"bce_with_logits", Task::kBinary},   {"focal_loss", Task::kBinary},     {"dice_loss", Task::kMulticlass}};

// The text as a value of the attribute's kind, if it is one.
std::optional<AttrValue> read(const AttrSpec& spec, const std::string& text) {
  const char *begin = text.data(), *end = begin + text.size();
  if (spec.kind == AttrKind::kString) return AttrValue(text);
  if (spec.kind == AttrKind::kBool && (text == "true" || text == "false")) return AttrValue(text == "true");
  if (int64_t v = 0; spec.kind == AttrKind::kInt)
    if (const auto [stop, error] = std::from_chars(begin, end, v); error == std::errc() && stop == end)
      return AttrValue(v);
  if (double v = 0; spec.kind == AttrKind::kFloat)
    if (const auto [stop, error] = std::from_chars(begin, end, v); error == std::errc() && stop == end)
      return AttrValue(v);
  return {};
}

Dims without_ones(const Dims& dims) {
  Dims out;
  std::copy_if(dims.begin(), dims.end(), std::back_inserter(out), [](int64_t d) { return d != 1; });
  return out;
}

}  // namespace

std::vector<std::string> loss_names() {
  std::vector<std::string> names{"auto"};
  for (const Entry& e : kLosses) names.push_back(e.name);
  return names;
}

std::string resolve_loss(const std::string& name, DType target) {
  if (name != "auto") return name;
  return is_float(target) ? "mse_loss" : "cross_entropy";
}

Task task_of(const std::string& loss) {
  for (const Entry& e : kLosses)
    if (loss == e.name) return e.task;
  return Task::kMulticlass;
}

std::optional<int64_t> ignored_label(const std::string& name, const std::map<std::string, std::string>& params) {
  const OpDef* def = ops::registry().find(name);
  const AttrSpec* spec = def != nullptr ? def->find_attr("ignore_index") : nullptr;
  if (spec == nullptr) return {};
  std::optional<AttrValue> value = spec->default_value;
  if (const auto given = params.find("ignore_index"); given != params.end()) value = read(*spec, given->second);
  if (!value) return {};  // make_loss() tells
  return std::get<int64_t>(*value);
}

Result<PairLoss> make_loss(const std::string& name, const std::map<std::string, std::string>& params) {
  const std::vector<std::string> names = loss_names();
  const OpDef* def =
      std::find(names.begin() + 1, names.end(), name) == names.end() ? nullptr : ops::registry().find(name);
  if (def == nullptr) {
    const std::string near = nearest(name, names);
    return invalid("loss.name: there is no loss '{}'; {}", name,
                   near.empty() ? "known: " + join(names, ", ") : "did you mean '" + near + "'?");
  }
  Attrs attrs;
  std::vector<std::string> problems, known;
  for (const AttrSpec& spec : def->attrs)
    if (spec.name != "reduction") known.push_back(spec.name);
  for (const auto& [key, text] : params) {
    const AttrSpec* spec = def->find_attr(key);
    if (spec == nullptr || key == "reduction") {
      problems.push_back(fmt::format("loss.{}: {} has no such parameter; it has: {}", key, name,
                                     known.empty() ? "none" : join(known, ", ")));
      continue;
    }
    if (std::optional<AttrValue> value = read(*spec, text))
      attrs.set(key, *value);
    else
      problems.push_back(
          fmt::format("loss.{}: expected {} ({}), got '{}'", key, to_string(spec->kind), spec->doc, text));
  }
  if (!problems.empty()) return Status(ErrorCode::kInvalidArgument, join(problems, "\n"));
  return PairLoss([name, attrs](Expr prediction, Expr target) {
    // A model's [N, 1] against targets [N]: the same numbers, never a broadcast.
    if (is_float(target.dtype()) && prediction.dims() != target.dims() &&
        without_ones(prediction.dims()) == without_ones(target.dims()))
      prediction = ops::reshape(prediction, target.dims());
    return prediction.builder().op(name, {prediction, target}, attrs);
  });
}

Result<std::vector<Pairing>> pair_targets(const std::vector<std::string>& outputs,
                                          const std::vector<std::string>& targets) {
  std::vector<Pairing> pairs;
  for (const std::string& target : targets) {
    if (std::find(outputs.begin(), outputs.end(), target) != outputs.end())
      pairs.push_back({target, target});
    else if (outputs.size() == 1 && targets.size() == 1)
      pairs.push_back({outputs[0], target});
    else
      return invalid(
          "the model has no output for the target '{}'; its outputs are: {}. Return a dict of outputs by "
          "their targets' names, or give a loss of your own",
          target, join(outputs, ", "));
  }
  return pairs;
}

Result<LossFunction> loss_of_targets(const std::string& name, const std::map<std::string, std::string>& params,
                                     const std::vector<data::Field>& targets) {
  if (targets.empty()) return invalid("the data have no target; give one, or a loss of your own");
  std::vector<std::string> names;
  std::vector<PairLoss> losses;
  for (const data::Field& target : targets) {
    const std::string resolved = resolve_loss(name, target.sample.dtype);
    std::map<std::string, std::string> own = params;
    if (target.ignored && ignored_label(resolved, {})) own.emplace("ignore_index", std::to_string(*target.ignored));
    DS_ASSIGN(PairLoss loss, make_loss(resolved, own));
    names.push_back(target.name);
    losses.push_back(std::move(loss));
  }
  return LossFunction([names, losses](const ModelOutputs& outputs, const BatchValues& batch) {
    std::vector<LossTerm> terms;
    Builder& builder = outputs.values[0].builder();
    const Result<std::vector<Pairing>> pairs = pair_targets(outputs.names, names);
    if (!pairs.ok()) builder.fail(pairs.status());
    for (size_t i = 0; pairs.ok() && i < pairs->size(); ++i) {
      const Pairing& p = (*pairs)[i];
      const auto at = std::find(outputs.names.begin(), outputs.names.end(), p.output) - outputs.names.begin();
      terms.push_back({names.size() == 1 ? "" : p.target,
                       losses[i](outputs.values[static_cast<size_t>(at)], batch.at(p.target)), 1});
    }
    return terms;
  });
}

}  // namespace deepseek::train
