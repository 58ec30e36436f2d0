#include "nn/module.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <set>
#include <utility>

#include "ops/dsl.h"

namespace deepseek::nn {

Trace::Trace(Builder& builder, const Module& root, bool training) : builder_(builder), training_(training) {
  const std::function<void(const Module&, const std::string&)> visit = [&](const Module& module,
                                                                           const std::string& path) {
    if (!paths_.emplace(&module, path).second) return;
    for (const auto& [name, child] : module.children()) visit(*child, path.empty() ? name : path + "." + name);
  };
  visit(root, "");
}

const std::string& Trace::path(const Module& module) const {
  static const std::string kUnknown;
  auto it = paths_.find(&module);
  return it == paths_.end() ? kUnknown : it->second;
}

Expr Trace::state(const Module& module, const std::string& name) {
  if (!paths_.contains(&module)) {
    builder_.fail(invalid(
        "a module with the tensor '{}' is not part of the traced model; assign it to an attribute of its parent",
        name));
    return {&builder_, {}};
  }
  const std::string& path = paths_.at(&module);
  const std::string full = path.empty() ? name : path + "." + name;
  if (auto it = states_.find(full); it != states_.end()) return it->second;
  for (const State& s : module.own_state())
    if (s.name == name) return states_[full] = builder_.state(full, s.value.type());
  builder_.fail(invalid("module '{}' has no parameter or buffer '{}'", path, name));
  return {&builder_, {}};
}

void Trace::update(const Module& module, const std::string& name, Expr value) {
  updates_.emplace_back(state(module, name), value);
}

Expr Trace::random_state() {
  if (!random_.defined()) {
    random_ = builder_.state(kRandomCounter, {DType::kI64, {2}});
    const int64_t step[2] = {0, 1};
    updates_.emplace_back(random_, ops::add(random_, builder_.constant(Tensor::from<int64_t>(DType::kI64, {2}, step))));
  }
  return random_;
}

void Trace::finish() {
  for (const auto& [state, value] : updates_) builder_.update(state, value);
  updates_.clear();
}

bool Trace::training(const Module& module) const { return training_ && module.training(); }

ModuleScope::ModuleScope(Trace& trace, const Module& module)
    : builder_(trace.builder()), outer_(trace.builder().scope()) {
  std::string scope = trace.path(module);
  for (char& c : scope)
    if (c == '.') c = '/';
  if (!scope.empty()) builder_.set_scope(scope);
  if (!module.status().ok()) builder_.fail(Status(module.status()).note("in module '" + trace.path(module) + "'"));
}

std::vector<Expr> Module::call(Trace& trace, const std::vector<Expr>& inputs) {
  ModuleScope scope(trace, *this);
  if (!status_.ok()) return {Expr(&trace.builder(), {})};
  return forward(trace, inputs);
}

namespace {
std::atomic<uint64_t> version{1}, serials{0};
std::atomic<uint64_t (*)(const Module&)> the_watcher{nullptr};

constexpr std::string_view kApart = "input/";

bool is_plain(const std::string& name) { return !name.empty() && name.find_first_of("./") == std::string::npos; }

void append(std::string& key, uint64_t word) { key.append(reinterpret_cast<const char*>(&word), sizeof(word)); }
}  // namespace

std::string input_name(const Module& root, const std::string& name) {
  const auto& own = root.own_state();
  const bool taken = std::any_of(own.begin(), own.end(), [&](const State& s) { return s.name == name; });
  return taken ? std::string(kApart) + name : name;
}

std::string data_name(const std::string& input_name) {
  return input_name.starts_with(kApart) ? input_name.substr(kApart.size()) : input_name;
}

uint64_t Module::structure_version() { return version; }
uint64_t Module::next_serial() { return ++serials; }
void Module::set_watcher(uint64_t (*watcher)(const Module&)) { the_watcher = watcher; }
uint64_t Module::watcher(const Module& module) {
  const auto ask = the_watcher.load();
  return ask == nullptr ? 0 : ask(module);
}

void Module::changed() {
  ++revision_;
  ++version;
}
void Module::watch(bool watched) {
  watched_ = watched;
  changed();
}

bool Structure::update(const Module& root) {
  const uint64_t now = version;
  if (version_ == now && !watched_) return false;
  version_ = now;
  watched_ = false;
  std::string key;
  std::set<const Module*> seen;
  const std::function<void(const Module&)> visit = [&](const Module& module) {
    append(key, module.serial());
    if (!seen.insert(&module).second) return;
    append(key, 2 * module.revision() + (module.training() ? 1 : 0));
    if (module.watched()) {
      watched_ = true;
      append(key, Module::watcher(module));
    }
    for (const auto& [name, child] : module.children()) visit(*child);
    append(key, 0);  // no serial
  };
  visit(root);
  return std::exchange(key_, key) != key;
}

void Module::set_training(bool training) {
  if (training_ != training) ++version;
  training_ = training;
}

void Module::register_tensor(const std::string& name, Tensor value, bool trainable) {
  changed();
  if (!require(is_plain(name), "expected a name without dots and slashes for a parameter or buffer, got '{}'", name))
    return;
  for (State& s : own_)
    if (s.name == name) {
      s = {name, std::move(value), trainable};
      return;
    }
  own_.push_back({name, std::move(value), trainable});
}
void Module::register_parameter(const std::string& name, Tensor value) {
  register_tensor(name, std::move(value), true);
}
void Module::register_parameter(const std::string& name, Dims dims, const std::function<Tensor(Dims)>& make) {
  if (!status_.ok()) return;  // after a tensor that is too large no other need be made
  const Status size = graph::check_size({DType::kF32, dims});
  if (require(size.ok(), "parameter '{}': {}", name, size.message())) register_parameter(name, make(std::move(dims)));
}
bool Module::require_possible(const char* layer, std::initializer_list<int64_t> sizes) {
  for (int64_t size : sizes)
    if (!require(size <= graph::kMaxSize, "{}: expected sizes of at most {}, got {}", layer, graph::kMaxSize, size))
      return false;
  return true;
}
void Module::register_buffer(const std::string& name, Tensor value) { register_tensor(name, std::move(value), false); }
void Module::register_module(const std::string& name, ModulePtr child) {
  changed();
  if (!require(is_plain(name), "expected a name without dots and slashes for a module, got '{}'", name)) return;
  for (auto& [existing, module] : children_)
    if (existing == name) {
      module = std::move(child);
      return;
    }
  children_.emplace_back(name, std::move(child));
}

Status Module::tree_status() const {
  DS_TRY(status_);
  for (const auto& [name, child] : children_)
    if (Status s = child->tree_status(); !s.ok()) return std::move(s).note("in module '" + name + "'");
  return {};
}

bool Module::unregister(const std::string& name) {
  const bool tensor = std::erase_if(own_, [&](const State& s) { return s.name == name; }) > 0;
  const bool child = std::erase_if(children_, [&](const auto& c) { return c.first == name; }) > 0;
  if (tensor || child) changed();
  return tensor || child;
}

std::vector<State> Module::named_state() const {
  std::vector<State> all;
  std::set<const Module*> seen;
  const std::function<void(const Module&, const std::string&)> visit = [&](const Module& module,
                                                                           const std::string& prefix) {
    if (!seen.insert(&module).second) return;
    for (const State& s : module.own_) all.push_back({prefix + s.name, s.value, s.trainable});
    for (const auto& [name, child] : module.children_) visit(*child, prefix + name + ".");
  };
  visit(*this, "");
  return all;
}

int64_t Module::num_parameters() const {
  int64_t total = 0;
  for (const State& s : named_state())
    if (s.trainable) total += s.value.num_elements();
  return total;
}

Status Module::load_state(const std::map<std::string, Tensor>& values) {
  std::string problems;
  std::set<std::string> known;
  const std::vector<State> all = named_state();
  for (const State& s : all) {
    known.insert(s.name);
    auto it = values.find(s.name);
    if (it == values.end())
      problems += fmt::format("\n  '{}' is missing", s.name);
    else if (it->second.type() != s.value.type())
      problems +=
          fmt::format("\n  '{}': expected {}, got {}", s.name, to_string(s.value.type()), to_string(it->second.type()));
  }
  for (const auto& [name, value] : values)
    if (!known.contains(name)) problems += fmt::format("\n  '{}' is not a tensor of the model", name);
  if (!problems.empty()) return invalid("state does not fit the model:{}", problems);
  for (const State& s : all) std::memcpy(s.value.data(), values.at(s.name).data(), s.value.num_bytes());
  return {};
}

}  // namespace deepseek::nn
