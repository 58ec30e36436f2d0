// The file's layout: which key of the metadata holds what.
#include "infer/model_file.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file_kind.h"
#include "base/files.h"
#include "base/guard.h"
#include "base/json.h"
#include "graph/hash.h"
#include "graph/text.h"
#include "io/safetensors.h"
#include "ops/registry.h"

namespace deepseek::infer {

using namespace graph;
using nlohmann::json;

namespace {

constexpr std::string_view kOwn = "deepseek.";  // what begins a key, and the name of a tensor, of ours
constexpr const char* kFormat = "deepseek.format";
constexpr const char* kGraphs[] = {"deepseek.graph.0", "deepseek.graph.1"};
constexpr const char* kSignature = "deepseek.signature";
constexpr const char* kOutputs = "deepseek.outputs";
constexpr const char* kPreprocessing = "deepseek.preprocessing";
constexpr const char* kProvenance = "deepseek.provenance";
constexpr std::string_view kConstant = "deepseek.constant.";
constexpr size_t kLargeConstant = 4096;  // bytes, from which on a constant is a tensor of the file
constexpr size_t kMostJson = 64u << 20;  // bytes of one text; parsed it takes some ten times as much
constexpr size_t kMostJsonDepth = 8;     // of our own texts

template <class... Args>
Status corrupt(fmt::format_string<Args...> format, Args&&... args) {
  return make_error(ErrorCode::kDataCorrupt, format, std::forward<Args>(args)...);
}

// The error with its notes, as another code and after a text.
Status again(const Status& status, ErrorCode code, const std::string& before) {
  Status error(code, before + status.message());
  for (const std::string& note : status.notes()) error = std::move(error).note(note);
  return error;
}

// --- writing

json to_json(const std::vector<Port>& ports) {
  json list = json::array();
  for (const Port& port : ports)
    list.push_back({{"name", port.name}, {"dtype", std::string(to_string(port.dtype))}, {"dims", port.dims}});
  return list;
}

// Large constants as tensors of the file, equal ones once.
class Constants {
 public:
  explicit Constants(io::TensorFile& file) : file_(file) {}
  std::optional<std::string> name(const Tensor& tensor) {
    if (tensor.num_bytes() < kLargeConstant) return std::nullopt;
    Hasher hasher;
    add(hasher, tensor);
    const auto [known, added] = names_.emplace(hasher.value(), fmt::format("{}{}", kConstant, names_.size()));
    if (added) file_.tensors.emplace(known->second, tensor);
    return known->second;
  }

 private:
  io::TensorFile& file_;
  std::map<Hash128, std::string> names_;
};

Result<io::TensorFile> to_file(const ModelFile& model) {
  DS_TRY(check_model(model));
  for (const int64_t size : {1, 2, 3})  // one of them is neither trace's
    if (const Result<Graph> graph = graph_for(model, size); !graph.ok())
      return invalid("the graphs for two sizes do not tell of a batch of {}: {}", size, graph.status().to_string());
  io::TensorFile file{model.weights, {}};
  file.metadata[kFormat] = std::to_string(kFormatVersion);
  Constants constants(file);
  for (size_t i = 0; i < model.graphs.size(); ++i)
    file.metadata[kGraphs[i]] = print(model.graphs[i], [&](const Tensor& t) { return constants.name(t); });
  file.metadata[kSignature] =
      dump_json(json{{"inputs", to_json(model.signature.inputs)}, {"outputs", to_json(model.signature.outputs)}});
  json outputs = json::object();
  for (const auto& [name, info] : model.outputs)
    outputs[name] = {{"class_names", info.class_names}, {"task", info.task}};
  if (!outputs.empty()) file.metadata[kOutputs] = dump_json(outputs);
  if (!model.preprocessing.empty()) file.metadata[kPreprocessing] = model.preprocessing;
  if (!model.provenance.empty()) file.metadata[kProvenance] = dump_json(json(model.provenance));
  return file;
}

// --- reading: each function is given the key, which its errors name

Result<json> parse_object(const std::string& key, const std::string& text) {
  if (text.size() > kMostJson)
    return corrupt("'{}' has {} bytes, at most {} are expected", key, text.size(), kMostJson);
  if (const Status s = check_json(text, kMostJsonDepth); !s.ok()) return corrupt("'{}' {}", key, s.message());
  json parsed = parse_json<json>(text, false);
  if (!parsed.is_object()) return corrupt("'{}': expected an object, got {}", key, parsed.type_name());
  return parsed;
}

// The value of a field that must be there; the others that may be are known by their number.
Result<const json*> field(const std::string& where, const json& object, const char* name, size_t fields) {
  if (!object.is_object()) return corrupt("{}: expected an object, got {}", where, object.type_name());
  const auto found = object.find(name);
  if (found == object.end()) return corrupt("{}: '{}' is missing", where, name);
  if (object.size() > fields) return corrupt("{}: expected {} fields, got {}", where, fields, object.size());
  return &*found;
}

Result<std::string> text_field(const std::string& where, const json& object, const char* name, size_t fields) {
  DS_ASSIGN(const json* value, field(where, object, name, fields));
  if (!value->is_string()) return corrupt("{}: '{}' must be a text, got {}", where, name, value->type_name());
  return value->get<std::string>();
}

Result<Port> parse_port(const std::string& where, const json& object) {
  constexpr size_t kFields = 3;
  Port port;
  DS_ASSIGN(port.name, text_field(where, object, "name", kFields));
  DS_ASSIGN(const std::string dtype, text_field(where, object, "dtype", kFields));
  const Result<DType> parsed = parse_dtype(dtype);
  if (!parsed.ok()) return corrupt("{}: {}", where, parsed.status().message());
  port.dtype = *parsed;
  DS_ASSIGN(const json* dims, field(where, object, "dims", kFields));
  if (!dims->is_array()) return corrupt("{}: 'dims' must be a list, got {}", where, dims->type_name());
  for (const json& dim : *dims) {
    const bool whole = dim.is_number_integer() && !(dim.is_number_unsigned() && dim.get<uint64_t>() > kMaxSize);
    const int64_t size = whole ? dim.get<int64_t>() : -2;
    if (size < -1) return corrupt("{}: sizes are -1 or in [0, {}], got {}", where, kMaxSize, dump_json(dim, -1, true));
    port.dims.push_back(size);
  }
  return port;
}

Result<Signature> parse_signature(const std::string& text) {
  DS_ASSIGN(const json object, parse_object(kSignature, text));
  Signature signature;
  for (const char* kind : {"inputs", "outputs"}) {
    const std::string where = fmt::format("'{}'", kSignature);
    DS_ASSIGN(const json* list, field(where, object, kind, 2));
    if (!list->is_array()) return corrupt("{}: '{}' must be a list, got {}", where, kind, list->type_name());
    auto& ports = std::string_view(kind) == "inputs" ? signature.inputs : signature.outputs;
    for (size_t i = 0; i < list->size(); ++i) {
      DS_ASSIGN(Port port, parse_port(fmt::format("'{}': {}[{}]", kSignature, kind, i), (*list)[i]));
      ports.push_back(std::move(port));
    }
  }
  return signature;
}

Result<std::map<std::string, OutputInfo>> parse_outputs(const std::string& text) {
  constexpr size_t kFields = 2;
  DS_ASSIGN(const json object, parse_object(kOutputs, text));
  std::map<std::string, OutputInfo> outputs;
  for (const auto& [name, value] : object.items()) {
    const std::string where = fmt::format("'{}': '{}'", kOutputs, name);
    OutputInfo& info = outputs[name];
    DS_ASSIGN(info.task, text_field(where, value, "task", kFields));
    DS_ASSIGN(const json* names, field(where, value, "class_names", kFields));
    if (!names->is_array()) return corrupt("{}: 'class_names' must be a list, got {}", where, names->type_name());
    for (const json& one : *names) {
      if (!one.is_string()) return corrupt("{}: a class name must be a text, got {}", where, one.type_name());
      info.class_names.push_back(one.get<std::string>());
    }
  }
  return outputs;
}

Result<std::map<std::string, std::string>> parse_provenance(const std::string& text) {
  DS_ASSIGN(const json object, parse_object(kProvenance, text));
  std::map<std::string, std::string> provenance;
  for (const auto& [key, value] : object.items()) {
    if (!value.is_string()) return corrupt("'{}': '{}' must be a text, got {}", kProvenance, key, value.type_name());
    provenance[key] = value.get<std::string>();
  }
  return provenance;
}

Result<int64_t> parse_format(const std::string& text) {
  int64_t format = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), format);
  if (error != std::errc() || end != text.data() + text.size() || format < 1)
    return corrupt("'{}' is '{}', expected a number from 1 on", kFormat, text.substr(0, 32));
  if (format > kFormatVersion)
    return make_error(ErrorCode::kUnsupported,
                      "has format version {}, this build reads versions up to {}; update deepseek "
                      "(pip install --upgrade deepseek), or export the model again with this one",
                      format, kFormatVersion);
  return format;
}

// Moves the tensors of the file that are the graphs' constants out of it, as the text asks for them.
class Found {
 public:
  explicit Found(std::map<std::string, Tensor>& tensors) {
    for (auto it = tensors.lower_bound(std::string(kConstant));
         it != tensors.end() && it->first.starts_with(kConstant);)
      constants_.insert(tensors.extract(it++));
  }
  Result<Tensor> find(const std::string& name) {
    const auto found = constants_.find(name);
    if (found == constants_.end()) return invalid("there is no tensor '{}' in the file", name);
    used_[name] = true;
    return found->second;
  }
  Status all_used() const {
    for (const auto& [name, tensor] : constants_)
      if (!used_.contains(name)) return corrupt("no graph uses the tensor '{}'", name);
    return {};
  }

 private:
  std::map<std::string, Tensor> constants_;
  std::map<std::string, bool> used_;
};

Result<ModelFile> from_file(io::TensorFile file) {
  const auto& metadata = file.metadata;
  if (!metadata.contains(kFormat))
    return make_error(ErrorCode::kInvalidArgument,
                      "holds weights ({} tensors), but no model; load them into a module of the same layers "
                      "(deepseek.load), or make a model file of a run (deepseek export)",
                      file.tensors.size());
  ModelFile model;
  DS_ASSIGN(model.format, parse_format(metadata.at(kFormat)));
  // What is ours and unknown would change what the model means.
  for (const auto& [key, text] : metadata) {
    bool known = !key.starts_with(kOwn);
    for (const char* own : {kFormat, kGraphs[0], kGraphs[1], kSignature, kOutputs, kPreprocessing, kProvenance})
      known = known || key == own;
    if (!known) return corrupt("the metadata's '{}' is none of format version {}", key, model.format);
  }
  const auto find = [&](const char* key) {
    const auto found = metadata.find(key);
    return found == metadata.end() ? nullptr : &found->second;
  };
  for (const char* key : {kGraphs[0], kSignature})
    if (find(key) == nullptr) return corrupt("the metadata's '{}' is missing", key);
  if (const std::string* text = find(kProvenance)) {
    DS_ASSIGN(model.provenance, parse_provenance(*text));
  }
  Found constants(file.tensors);
  const ParseOptions options{[&](const std::string& name) { return constants.find(name); }, true};
  for (const char* key : kGraphs)
    if (const std::string* text = find(key)) {
      Result<Graph> parsed = parse(*text, ops::registry(), key, options);
      if (!parsed.ok()) {
        Status error = again(parsed.status(), ErrorCode::kDataCorrupt, "");
        const auto by = model.provenance.find("framework_version");
        return by == model.provenance.end() ? error : std::move(error).note("the file is of deepseek " + by->second);
      }
      model.graphs.push_back(std::move(parsed).value());
    }
  DS_TRY(constants.all_used());
  model.weights = std::move(file.tensors);
  DS_ASSIGN(model.signature, parse_signature(metadata.at(kSignature)));
  if (const std::string* text = find(kOutputs)) {
    DS_ASSIGN(model.outputs, parse_outputs(*text));
  }
  if (const std::string* text = find(kPreprocessing)) model.preprocessing = *text;
  if (const Status s = check_model(model); !s.ok())
    return s.code() == ErrorCode::kInvalidArgument ? again(s, ErrorCode::kDataCorrupt, "") : s;
  return model;
}

Status named(std::string_view where, const Status& status) {
  return again(status, status.code(), fmt::format("[model file] '{}': ", where));
}
Status other_file(std::string_view where, const std::string& kind) {
  return make_error(ErrorCode::kInvalidArgument, "[model file] '{}' {}", where, kind);
}

Result<ModelFile> to_model(Result<io::TensorFile> file, std::string_view where) {
  if (!file.ok()) return std::move(file).status();
  Result<ModelFile> model = from_file(std::move(file).value());
  if (!model.ok()) return named(where, model.status());
  return model;
}

// A folder is no file, but people give one where the file in it is meant.
Status check_folder(const std::string& path) {
  std::error_code failed;
  if (!std::filesystem::is_directory(path, failed)) return {};
  const std::filesystem::path inside = std::filesystem::path(path) / "model.safetensors";
  if (std::filesystem::is_regular_file(inside, failed))
    return invalid("[model file] '{}' is a folder; give the model file in it, '{}'", path, inside.string());
  if (std::filesystem::exists(std::filesystem::path(path) / "saved_model.pb", failed))
    return invalid("[model file] '{}' is a SavedModel of TensorFlow, which is not read", path);
  return invalid("[model file] '{}' is a folder; give a model file, as `deepseek export` writes it", path);
}

Result<std::vector<std::byte>> read_start(const std::string& path) {
  DS_ASSIGN(const OpenFile opened, open_file(path));
  std::vector<std::byte> start(std::min(opened.bytes, kKindBytes));
  DS_ASSIGN(const size_t read, read_at(opened, 0, start, path));
  start.resize(read);
  return start;
}

}  // namespace

Status save_model(const std::string& path, const ModelFile& model) {
  return guarded(fmt::format("while writing '{}'", path), [&]() -> Status {
    Result<io::TensorFile> file = to_file(model);
    if (!file.ok()) return named(path, file.status());
    return io::save_safetensors(path, *file);
  });
}

Result<ModelFile> load_model(const std::string& path) {
  return guarded(fmt::format("while reading '{}'", path), [&]() -> Result<ModelFile> {
    DS_TRY(check_path(path));
    DS_TRY(check_folder(path));
    DS_ASSIGN(const std::vector<std::byte> start, read_start(path));
    if (const std::string kind = other_kind(start, path); !kind.empty()) return other_file(path, kind);
    return to_model(io::load_safetensors(path), path);
  });
}

Result<ModelFile> parse_model(std::span<const std::byte> bytes, std::string_view where) {
  return guarded(fmt::format("while reading '{}'", where), [&]() -> Result<ModelFile> {
    if (const std::string kind = other_kind(bytes, where); !kind.empty()) return other_file(where, kind);
    return to_model(io::parse_safetensors(bytes, where), where);
  });
}

}  // namespace deepseek::infer
