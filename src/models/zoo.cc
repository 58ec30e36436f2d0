#include "models/zoo.h"

#include <algorithm>
#include <charconv>

#include "base/strings.h"

namespace deepseek::models {

namespace {

struct Entry {
  const char* name;
  Result<nn::ModulePtr> (*make)(const Task&, const Parameters&);
};
constexpr Entry kModels[] = {
    {"mlp", make_mlp},   {"small_resnet", make_small_resnet}, {"resnet18", make_resnet18}, {"resnet50", make_resnet50},
    {"lstm", make_lstm}, {"transformer", make_transformer},   {"bert", make_bert}};

template <class T>
Result<T> read(const Parameters& parameters, const std::string& key, T fallback, T low, T high, const char* what) {
  auto it = parameters.find(key);
  if (it == parameters.end()) return fallback;
  T value = 0;
  const char* const end = it->second.data() + it->second.size();
  const auto [stop, error] = std::from_chars(it->second.data(), end, value);
  if (error != std::errc() || stop != end || !(value >= low && value <= high))
    return invalid("model.{}: expected {} in [{}, {}], got '{}'", key, what, low, high, it->second);
  return value;
}

}  // namespace

std::vector<std::string> names() {
  std::vector<std::string> out;
  for (const Entry& e : kModels) out.push_back(e.name);
  return out;
}

Result<nn::ModulePtr> create(const std::string& name, const Task& task, const Parameters& parameters) {
  std::string known;
  for (const Entry& e : kModels) {
    if (name == e.name) return e.make(task, parameters);
    known += (known.empty() ? "" : ", ") + std::string(e.name);
  }
  return invalid("model.name: there is no model '{}'; the zoo has: {}", name, known);
}

Result<int64_t> integer(const Parameters& parameters, const std::string& key, int64_t fallback, int64_t low,
                        int64_t high) {
  return read<int64_t>(parameters, key, fallback, low, high, "an integer");
}

Result<double> number(const Parameters& parameters, const std::string& key, double fallback, double low, double high) {
  return read<double>(parameters, key, fallback, low, high, "a number");
}

Result<std::string> choice(const Parameters& parameters, const std::string& key,
                           const std::vector<std::string>& values) {
  auto it = parameters.find(key);
  if (it == parameters.end()) return values[0];
  if (std::find(values.begin(), values.end(), it->second) == values.end())
    return invalid("model.{}: expected one of {}; got '{}'", key, join(values, ", "), it->second);
  return it->second;
}

Status only(const Parameters& parameters, const std::vector<std::string>& known, const std::string& model) {
  for (const auto& [key, value] : parameters)
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      std::string list;
      for (const std::string& k : known) list += (list.empty() ? "" : ", ") + k;
      return invalid("model.{}: model '{}' has no such parameter; it has: {}", key, model, list);
    }
  return {};
}

Status check_sequence(const Task& task, int64_t vocabulary, const std::string& model) {
  if (vocabulary > 0 && task.input.size() != 1)
    return invalid("model '{}' with a vocabulary takes tokens [T], the data has samples of shape {}", model,
                   graph::to_string(task.input));
  if (vocabulary == 0 && task.input.size() != 2)
    return invalid(
        "model '{}' takes sequences [T, F], or tokens [T] with model.vocabulary; the data has samples of shape {}",
        model, graph::to_string(task.input));
  return {};
}

}  // namespace deepseek::models
