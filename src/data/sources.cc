#include "data/sources.h"

#include <dlfcn.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <span>

#include "base/guard.h"
#include "base/json.h"
#include "base/random.h"
#include "base/strings.h"
#include "data/builtin_sources.h"

namespace deepseek::data {
namespace {

using Json = nlohmann::ordered_json;

struct Registry {
  std::mutex mutex;
  std::map<std::string, Source> sources;
};

Registry& registry() {
  static Registry* const all = [] {  // never destroyed: threads may still ask at exit
    auto* r = new Registry;
    for (Source& s : idx_sources()) r->sources[s.name] = std::move(s);
    for (Source s : {image_folder_source(), array_source()}) r->sources[s.name] = std::move(s);
    return r;
  }();
  return *all;
}

std::optional<Source> registered(const std::string& name) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  const auto it = r.sources.find(name);
  if (it == r.sources.end()) return std::nullopt;
  return it->second;
}

// Sources in libraries of their own, which register them where deepseek_register_sources() is called.
struct Library {
  const char *source, *file, *needs;
};
constexpr Library kLibraries[] = {
    {"table", "libdeepseek_tables.so", "Arrow, which comes with pyarrow: pip install \"deepseek[data]\""},
};

Status load(const Library& library) {
  // Beside this library, and then wherever the system looks.
  Dl_info self;
  std::string beside;
  if (dladdr(reinterpret_cast<const void*>(&register_source), &self) != 0 && self.dli_fname != nullptr)
    beside = std::filesystem::path(self.dli_fname).replace_filename(library.file).string();
  std::error_code error;
  void* handle = nullptr;
  if (beside.find('/') != std::string::npos && std::filesystem::exists(beside, error))
    handle = dlopen(beside.c_str(), RTLD_NOW | RTLD_LOCAL);
  else
    handle = dlopen(library.file, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const why = dlerror();
    return make_error(ErrorCode::kUnsupported, "[data] data set '{}' needs {} ({})", library.source, library.needs,
                      why == nullptr ? "the library cannot be loaded" : why);
  }
  // The handle stays open: what it has registered is code of the library.
  auto* const enter = reinterpret_cast<void (*)()>(dlsym(handle, "deepseek_register_sources"));
  if (enter == nullptr)
    return make_error(ErrorCode::kUnsupported, "[data] data set '{}': '{}' is of another version, it lacks {}",
                      library.source, library.file, "deepseek_register_sources");
  enter();
  return {};
}

Status load_guarded(const Library& library) {
  return guarded(fmt::format("[data] while loading '{}'", library.file), [&] { return load(library); });
}

// The inputs that a spec names, with its normalisation, and whatever targets there are.
Result<DatasetPtr> with_inputs_of(const Json& spec, const DatasetPtr& data) {
  if (!spec.contains("fields")) return data;
  const Json& given = spec["fields"];
  if (!given.is_object()) return make_error(ErrorCode::kDataCorrupt, "[data] \"fields\" of an input spec is no object");
  const auto numbers = [](const Json& field, const char* key) -> Result<std::vector<double>> {
    std::vector<double> out;
    const Json list = field.value(key, Json::array());
    for (const Json& v : list) {
      if (!v.is_number())
        return make_error(ErrorCode::kDataCorrupt, "[data] {} of an input spec holds {}", key, dump_json(v));
      out.push_back(v.get<double>());
    }
    return out;
  };
  std::vector<Field> fields;
  for (const auto& [name, what] : given.items()) {
    const Field* const f = data->find(name);
    if (f == nullptr || f->role != Role::kInput)
      return make_error(ErrorCode::kDataCorrupt, "[data] the model's input '{}' isn't among the inputs of this data",
                        name);
    fields.push_back(*f);
    if (!f->is_normalised()) continue;
    const Json scale = what.is_object() ? what.value("scale", Json(1.0)) : Json();
    if (!scale.is_number())
      return make_error(ErrorCode::kDataCorrupt, "[data] '{}' of an input spec lacks a scale", name);
    Normalisation& n = fields.back().normalisation;
    n.scale = scale.get<double>();
    DS_ASSIGN(n.mean, numbers(what, "mean"));
    DS_ASSIGN(n.stddev, numbers(what, "stddev"));
  }
  for (const Field* f : data->targets()) fields.push_back(*f);
  return DatasetView::with_fields(data, std::move(fields));
}

Result<Input> open_parsed(const std::string& text, const std::string& path) {
  if (text.empty())
    return invalid(
        "[data] '{}': this model learnt from arrays, and does not know how files become its inputs; give it arrays",
        path);
  Json spec = parse_json<Json>(text, false);
  if (!spec.is_object())
    return make_error(ErrorCode::kDataCorrupt, "[data] an input spec is no JSON object: {}", text.substr(0, 200));
  DS_ASSIGN(const std::string name, spec_text(spec, "source"));
  DS_ASSIGN(const Source source, find_source(name));
  if (!source.open_input)
    return invalid("[data] '{}': data of '{}' come as arrays only; give the model arrays", path, name);
  Json own = spec;
  own.erase("source");
  own.erase("fields");
  Result<Input> input = source.open_input(dump_json(own), path);
  if (!input.ok()) return input;
  if (input->data == nullptr || static_cast<int64_t>(input->labels.size()) != input->data->size())
    return make_error(ErrorCode::kInternal, "[data] source '{}' gave {} labels for {} samples", name,
                      input->labels.size(), input->data == nullptr ? 0 : input->data->size());
  DS_ASSIGN(input->data, with_inputs_of(spec, input->data));
  if (Status s = input->data->validate(); !s.ok()) return std::move(s).note("while reading '" + path + "'");
  return input;
}

// How the test part differs from the training part, if it does.
Result<std::vector<Field>> fields_for_test(const Dataset& train, const Dataset& test) {
  const auto corrupt = [](std::string text) { return Status(ErrorCode::kDataCorrupt, "[data] " + std::move(text)); };
  for (const Field& f : test.fields())
    if (train.find(f.name) == nullptr)
      return corrupt(fmt::format("test samples have '{}', training samples not", f.name));
  for (const Field& f : train.fields()) {
    const Field* const other = test.find(f.name);
    if (other == nullptr) return corrupt(fmt::format("training samples have '{}', test samples not", f.name));
    if (other->sample != f.sample || other->role != f.role)
      return corrupt(fmt::format("'{}' of training samples is {}, of test samples {}", f.name, to_string(f.sample),
                                 to_string(other->sample)));
    if (other->class_names != f.class_names)
      return corrupt(fmt::format("'{}' of training samples has the classes {}, of test samples {}", f.name,
                                 fmt::join(f.class_names, ", "), fmt::join(other->class_names, ", ")));
  }
  return train.fields();
}

}  // namespace

Result<int64_t> spec_number(const Json& spec, const std::string& key, int64_t least, int64_t most) {
  const auto it = spec.find(key);
  if (it == spec.end() || !it->is_number_integer() || it->get<int64_t>() < least || it->get<int64_t>() > most)
    return make_error(ErrorCode::kDataCorrupt, "[data] \"{}\" of an input spec is {}, expected a number from {} to {}",
                      key, it == spec.end() ? "missing" : dump_json(*it), least, most);
  return it->get<int64_t>();
}

Result<std::string> spec_text(const Json& spec, const std::string& key) {
  const auto it = spec.find(key);
  if (it == spec.end() || !it->is_string())
    return make_error(ErrorCode::kDataCorrupt, "[data] \"{}\" of an input spec is {}, expected a text", key,
                      it == spec.end() ? "missing" : dump_json(*it));
  return it->get<std::string>();
}

void register_source(Source source) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  const std::string name = source.name;
  r.sources[name] = std::move(source);
}

std::vector<Source> sources() {
  // Where a library is not installed, its sources are not listed.
  for (const Library& l : kLibraries)
    if (!registered(l.source)) static_cast<void>(load_guarded(l).ok());
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  std::vector<Source> all;
  for (const auto& [name, source] : r.sources) all.push_back(source);
  return all;
}

Status load_source_library(const std::string& source) {
  for (const Library& l : kLibraries)
    if (source == l.source && !registered(source)) DS_TRY(load_guarded(l));
  return {};
}

Result<Source> find_source(const std::string& name) {
  DS_TRY(load_source_library(name));
  if (std::optional<Source> found = registered(name)) return *std::move(found);
  std::vector<std::string> names;
  for (const Source& s : sources()) names.push_back(s.name);
  for (const Library& l : kLibraries)
    if (std::find(names.begin(), names.end(), l.source) == names.end()) names.emplace_back(l.source);
  return invalid("[data] unknown data set '{}'{}; there are: {}", name, did_you_mean(name, names),
                 fmt::join(names, ", "));
}

std::string sources_text() {
  std::string out;
  for (const Source& s : sources()) out += fmt::format("{:<16} {}\n", s.name, s.doc);
  return out;
}

Result<std::string> source_text(const std::string& name) {
  DS_ASSIGN(const Source source, find_source(name));
  std::string out = fmt::format("{}: {}\n\n", source.name, source.doc);
  size_t width = 0;
  for (const Key& k : source.keys) width = std::max(width, k.name.size());
  for (const Key& k : source.keys) {
    const std::string end = k.required ? " (required)" : k.value.empty() ? "" : " (default " + k.value + ")";
    out += fmt::format("  {:<{}}  {}{}\n", k.name, width, k.doc, end);
  }
  return out + "\n" + source.example;
}

Result<Splits> open_dataset(const std::string& name, const Params& params) {
  DS_ASSIGN(const Source source, find_source(name));
  DS_TRY(check_keys(source, params));
  DS_ASSIGN(Splits splits, guarded(fmt::format("[data] data set '{}'", name), [&] { return source.open(params); }));
  if (splits.train == nullptr)
    return make_error(ErrorCode::kInternal, "[data] source '{}' gave no training data", name);
  DS_TRY(splits.train->validate().note("in the training data"));
  if (splits.validation) DS_TRY(splits.validation->validate().note("in the validation data"));
  if (splits.test) DS_TRY(splits.test->validate().note("in the test data"));
  return splits;
}

Result<Input> open_input(const std::string& spec, const std::string& path) {
  return guarded(fmt::format("[data] while reading '{}'", path), [&] { return open_parsed(spec, path); });
}

std::vector<Key> split_keys() {
  return {{"validation_fraction", "how much of the training data is held out, in [0, 1), chosen at random", "0.1"},
          {"seed", "of the random choices of parts", "0"}};
}

Status check_keys(const Source& source, const Params& params) {
  std::vector<std::string> known;
  for (const Key& k : source.keys) known.push_back(k.name);
  for (const auto& [key, value] : params) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    return invalid("[data] data set '{}' has no parameter '{}'{}; it takes: {}", source.name, key,
                   did_you_mean(key, known), fmt::join(known, ", "));
  }
  for (const Key& k : source.keys)
    if (k.required && !params.contains(k.name))
      return invalid("[data] data set '{}' needs the parameter '{}': {}", source.name, k.name, k.doc);
  return {};
}

std::string text(const Params& params, const std::string& key, const std::string& otherwise) {
  const auto it = params.find(key);
  return it == params.end() ? otherwise : it->second;
}

template <class T>
Result<T> number(const Params& params, const std::string& key, T otherwise) {
  const auto it = params.find(key);
  if (it == params.end()) return otherwise;
  T value{};
  const char* end = it->second.data() + it->second.size();
  const auto [stop, error] = std::from_chars(it->second.data(), end, value);
  if (error != std::errc() || stop != end) {
    return invalid("[data] parameter '{}' is '{}', expected a {}number", key, it->second,
                   std::is_floating_point_v<T> ? ""
                   : std::is_signed_v<T>       ? "whole "
                                               : "whole, non-negative ");
  }
  return value;
}
template Result<int64_t> number(const Params&, const std::string&, int64_t);
template Result<uint64_t> number(const Params&, const std::string&, uint64_t);
template Result<double> number(const Params&, const std::string&, double);

std::vector<std::string> list(const Params& params, const std::string& key) {
  std::vector<std::string> out;
  const std::string all = text(params, key, "");
  if (trim(all).empty()) return out;
  for (const std::string& part : deepseek::split(all, ',')) out.emplace_back(trim(part));
  return out;
}

Result<HeldOut> hold_out(const DatasetPtr& all, const Params& params) {
  DS_ASSIGN(const double fraction, number<double>(params, "test_fraction", 0.1));
  DS_ASSIGN(const uint64_t seed, number<uint64_t>(params, "seed", 0));
  if (fraction == 0) return HeldOut{all, nullptr};
  const auto count = static_cast<int64_t>(fraction * static_cast<double>(all->size()));
  if (!(fraction > 0 && fraction < 1) || count < 1 || count >= all->size())
    return invalid("[data] test_fraction is {}: of {} samples that leaves none for one part; 0 is for no test part",
                   fraction, all->size());
  std::vector<int64_t> order = permutation(all->size(), seed + 1);
  std::sort(order.begin(), order.begin() + count);
  std::sort(order.begin() + count, order.end());
  HeldOut out;
  DS_ASSIGN(out.test, DatasetView::subset(all, std::span(order).first(static_cast<size_t>(count))));
  DS_ASSIGN(out.rest, DatasetView::subset(all, std::span(order).subspan(static_cast<size_t>(count))));
  return out;
}

Result<Splits> split(const DatasetPtr& all, DatasetPtr test, const Params& params, bool fit) {
  DS_ASSIGN(const double fraction, number<double>(params, "validation_fraction", 0.1));
  DS_ASSIGN(const uint64_t seed, number<uint64_t>(params, "seed", 0));
  if (!(fraction >= 0 && fraction < 1)) {
    return invalid("[data] validation_fraction is {}, expected a value in [0, 1)", fraction);
  }
  const auto for_validation = static_cast<size_t>(fraction * static_cast<double>(all->size()));
  std::vector<int64_t> order = permutation(all->size(), seed);
  // Sorted parts read the source front to back; the loader shuffles anyway.
  const auto middle = order.begin() + static_cast<std::ptrdiff_t>(for_validation);
  std::sort(order.begin(), middle);
  std::sort(middle, order.end());
  Splits out;
  DS_ASSIGN(const DatasetPtr rest, DatasetView::subset(all, std::span(order).subspan(for_validation)));
  out.train = rest;
  if (fit) {
    DS_ASSIGN(out.train, fit_normalisation(rest));
  }
  if (for_validation > 0) {
    DS_ASSIGN(const DatasetPtr held_out, DatasetView::subset(all, std::span(order).first(for_validation)));
    DS_ASSIGN(out.validation, DatasetView::with_fields(held_out, out.train->fields()));
  }
  if (test) {
    DS_ASSIGN(std::vector<Field> fields, fields_for_test(*out.train, *test));
    DS_ASSIGN(out.test, DatasetView::with_fields(test, std::move(fields)));
  }
  return out;
}

}  // namespace deepseek::data
