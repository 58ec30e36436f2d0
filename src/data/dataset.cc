#include "data/dataset.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/guard.h"
#include "base/json.h"
#include "base/strings.h"
#include "base/threads.h"
#include "data/parts.h"
#include "io/event_file.h"

namespace deepseek::data {
namespace {

using graph::Tensor;
using Json = nlohmann::ordered_json;

int64_t row_elements(const Tensor& t) { return t.dims()[0] == 0 ? 0 : t.num_elements() / t.dims()[0]; }

int64_t channels_of(const graph::Dims& batch) { return batch.size() >= 2 ? batch[1] : 1; }

double pick(const std::vector<double>& values, int64_t channel, double otherwise) {
  if (values.empty()) return otherwise;
  return values.size() == 1 ? values[0] : values[static_cast<size_t>(channel)];
}

Status check_per_channel(const Field& f, const std::vector<double>& values, const char* what, int64_t channels,
                         bool positive) {
  if (values.size() > 1 && static_cast<int64_t>(values.size()) != channels) {
    return invalid("[data] {} of '{}' has {} values, expected 1{}", what, f.name, values.size(),
                   channels < 0 ? std::string(", as the number of channels isn't fixed")
                                : fmt::format(" or one for each of the {} channels", channels));
  }
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i]) || (positive && values[i] <= 0)) {
      return invalid("[data] {}[{}] of '{}' is {}, expected a {} number", what, i, f.name, values[i],
                     positive ? "positive finite" : "finite");
    }
  }
  return {};
}

Status check_field(const Field& f) {
  if (f.name.empty() || f.name.find_first_of("/<>") != std::string::npos)
    return invalid("[data] a field is named '{}', expected a name that isn't empty, without '/', '<' and '>'", f.name);
  const graph::TensorType& type = f.sample;
  const DType d = type.dtype;
  if (f.role == Role::kInput && d != DType::kU8 && d != DType::kF32 && d != DType::kI64)
    return invalid("[data] '{}' is {} per sample, expected inputs of u8, f32 or i64; convert them first", f.name,
                   to_string(type));
  if (f.role == Role::kTarget && d != DType::kI64 && d != DType::kF32)
    return invalid("[data] '{}' is {} per sample, expected targets of i64 class labels or f32; convert them first",
                   f.name, to_string(type));
  for (const int64_t size : type.dims) {
    if (size == 0) return invalid("[data] samples of '{}' have no elements: {}", f.name, to_string(type));
    if (size < -1)
      return invalid("[data] samples of '{}' are {}, expected sizes of 1 or more, or -1 for one that varies", f.name,
                     to_string(type));
  }
  if (f.is_classes() && f.class_names.empty())
    return invalid("[data] the class labels '{}' need class_names, got none", f.name);
  if (!f.is_normalised()) return {};
  const Normalisation& n = f.normalisation;
  if (!std::isfinite(n.scale) || n.scale == 0)
    return invalid("[data] scale of '{}' is {}, expected a finite non-zero", f.name, n.scale);
  const int64_t channels = type.dims.empty() ? 1 : type.dims[0];
  DS_TRY(check_per_channel(f, n.mean, "mean", channels, false));
  return check_per_channel(f, n.stddev, "stddev", channels, true);
}

Status check_index(int64_t index, int64_t size) {
  if (index >= 0 && index < size) return {};
  return invalid("[data] sample index {} is out of range, the data set has {} samples", index, size);
}

// Whether a batch's tensor holds n of the field's samples.
bool fits(const Field& f, const Tensor& t, int64_t n) {
  const graph::Dims& dims = t.dims();
  if (t.dtype() != f.sample.dtype || dims.size() != f.sample.dims.size() + 1 || dims[0] != n) return false;
  for (size_t i = 1; i < dims.size(); ++i)
    if (f.sample.dims[i - 1] >= 0 && f.sample.dims[i - 1] != dims[i]) return false;
  return true;
}

std::vector<const Field*> of_role(const std::vector<Field>& fields, Role role) {
  std::vector<const Field*> out;
  for (const Field& f : fields)
    if (f.role == role) out.push_back(&f);
  return out;
}

// (raw * scale - mean) / stddev as one factor and one offset per channel.
Result<Tensor> normalised(const Field& f, const Tensor& raw) {
  const Normalisation& n = f.normalisation;
  const int64_t channels = channels_of(raw.dims()), row = row_elements(raw), plane = channels == 0 ? 0 : row / channels;
  DS_TRY(check_per_channel(f, n.mean, "mean", channels, false));
  DS_TRY(check_per_channel(f, n.stddev, "stddev", channels, true));
  if (raw.dtype() == DType::kF32 && n == Normalisation()) return raw;
  Tensor out(DType::kF32, raw.dims());
  std::vector<float> factor(static_cast<size_t>(channels)), offset(static_cast<size_t>(channels));
  for (int64_t c = 0; c < channels; ++c) {
    const double inverse = 1.0 / pick(n.stddev, c, 1.0);
    factor[static_cast<size_t>(c)] = static_cast<float>(n.scale * inverse);
    offset[static_cast<size_t>(c)] = static_cast<float>(-pick(n.mean, c, 0.0) * inverse);
  }
  const auto convert = [&]<class T>(const T* all) {
    parallel_for(raw.dims()[0], std::max<int64_t>(1, 65536 / std::max<int64_t>(row, 1)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) {
                     const T* from = all + i * row;
                     float* to = out.as<float>() + i * row;
                     for (int64_t c = 0; c < channels; ++c) {
                       const float k = factor[static_cast<size_t>(c)], o = offset[static_cast<size_t>(c)];
                       for (int64_t p = 0; p < plane; ++p)
                         to[c * plane + p] = static_cast<float>(from[c * plane + p]) * k + o;
                     }
                   }
                 });
  };
  if (raw.dtype() == DType::kU8)
    convert(raw.as<uint8_t>());
  else
    convert(raw.as<float>());
  return out;
}

}  // namespace

graph::TensorType Field::batch_type(int64_t n) const {
  graph::TensorType type = sample;
  if (role == Role::kInput && type.dtype == DType::kU8) type.dtype = DType::kF32;
  type.dims.insert(type.dims.begin(), n);
  return type;
}

std::string to_string(const BatchType& type) {
  std::vector<std::string> inputs, targets;
  for (const BatchEntry& e : type)
    (e.role == Role::kInput ? inputs : targets).push_back(e.name + " " + to_string(e.type));
  return join(inputs, ", ") + (targets.empty() ? "" : " -> " + join(targets, ", "));
}

Status check_values(const Field& f, const Tensor& rows, int64_t first) {
  const int64_t n = rows.num_elements(), row = rows.dims().empty() ? 1 : row_elements(rows);
  if (rows.dtype() == DType::kF32) {
    const float* const values = rows.as<float>();
    for (int64_t i = 0; i < n; ++i) {
      if (std::isfinite(values[i])) continue;
      return make_error(ErrorCode::kDataCorrupt,
                        "[data] '{}' of sample {} holds {} at position {}, expected finite numbers; remove or repair "
                        "the sample",
                        f.name, first + i / row, values[i], i % row);
    }
  }
  if (!f.is_classes() || rows.dtype() != DType::kI64) return {};
  const int64_t* const labels = rows.as<int64_t>();
  for (int64_t i = 0; i < n; ++i) {
    if ((labels[i] >= 0 && labels[i] < f.num_classes()) || labels[i] == f.ignored) continue;
    return make_error(ErrorCode::kDataCorrupt, "[data] '{}': label of sample {} is {}, expected 0 to {} ({} classes){}",
                      f.name, first + i / row, labels[i], f.num_classes() - 1, f.num_classes(),
                      f.ignored ? fmt::format(" or {}, which is ignored", *f.ignored)
                                : "; targets that do not count need ignore_index");
  }
  return {};
}

Tensor gather_rows(const Tensor& from, std::span<const int64_t> indices) {
  graph::Dims dims = from.dims();
  dims[0] = static_cast<int64_t>(indices.size());
  Tensor out(from.dtype(), std::move(dims));
  const size_t bytes = static_cast<size_t>(row_elements(from)) * size_of(from.dtype());
  const auto grain = static_cast<int64_t>(std::max<size_t>(1, (size_t{1} << 20) / std::max<size_t>(bytes, 1)));
  parallel_for(static_cast<int64_t>(indices.size()), grain, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
      std::memcpy(out.as<char>() + i * bytes, from.as<char>() + static_cast<size_t>(indices[i]) * bytes, bytes);
  });
  return out;
}

const Field* Dataset::find(std::string_view name) const {
  const auto it = std::find_if(fields_.begin(), fields_.end(), [&](const Field& f) { return f.name == name; });
  return it == fields_.end() ? nullptr : &*it;
}

std::vector<const Field*> Dataset::inputs() const { return of_role(fields_, Role::kInput); }
std::vector<const Field*> Dataset::targets() const { return of_role(fields_, Role::kTarget); }

Status Dataset::validate() const {
  if (inputs().empty()) return invalid("[data] the data set lacks inputs");
  if (size() == 0) return invalid("[data] the data set is empty; check the path and the split");
  std::set<std::string_view> names;
  for (const Field& f : fields_) {
    DS_TRY(check_field(f));
    if (!names.insert(f.name).second) return invalid("[data] two fields are named '{}'; rename one of them", f.name);
  }
  return guarded("[data] while checking samples", [this] { return check(); });
}

Status Dataset::check() const {
  if (has_passed_) return {};
  const std::vector<const Field*> sources = inputs();
  const bool floats =
      std::any_of(sources.begin(), sources.end(), [](auto* f) { return f->sample.dtype == DType::kF32; });
  if (!floats && targets().empty()) return {};
  std::vector<const Field*> read = targets();
  if (floats) read.insert(read.end(), sources.begin(), sources.end());
  const int64_t step = samples_per_part(read);
  for (int64_t begin = 0; begin < size(); begin += step) {
    const std::vector<int64_t> indices = rows_between(begin, std::min(size(), begin + step));
    DS_ASSIGN(const Batch part, floats ? read_raw(indices) : read_targets(indices));
    for (const Field& f : fields_)
      if (const auto it = part.find(f.name); it != part.end()) DS_TRY(check_values(f, it->second, begin));
  }
  has_passed_ = true;
  return {};
}

Result<Batch> Dataset::checked(Result<Batch> batch, int64_t n, bool targets_only) const {
  if (!batch.ok()) return batch;
  Batch out;
  for (const Field& f : fields_) {
    if (targets_only && f.role != Role::kTarget) continue;
    const auto it = batch->find(f.name);
    if (it == batch->end()) return invalid("[data] a batch lacks '{}', which the data set says it has", f.name);
    if (!fits(f, it->second, n)) {
      graph::TensorType expected = f.sample;
      expected.dims.insert(expected.dims.begin(), n);
      return invalid("[data] '{}' of {} samples is {}, expected {}", f.name, n, to_string(it->second.type()),
                     to_string(expected));
    }
    out.insert(*it);
  }
  return out;
}

Result<Batch> Dataset::read_raw(std::span<const int64_t> indices) const {
  for (const int64_t index : indices) DS_TRY(check_index(index, size()));
  return checked(guarded("[data] while reading samples", [&] { return rows(indices); }),
                 static_cast<int64_t>(indices.size()), false);
}

Result<Batch> Dataset::read_targets(std::span<const int64_t> indices) const {
  for (const int64_t index : indices) DS_TRY(check_index(index, size()));
  return checked(guarded("[data] while reading targets", [&] { return target_rows(indices); }),
                 static_cast<int64_t>(indices.size()), true);
}

Result<Batch> Dataset::read(std::span<const int64_t> indices) const {
  DS_ASSIGN(Batch raw, read_raw(indices));
  return normalise(std::move(raw));
}

Result<Batch> Dataset::normalise(Batch raw) const {
  for (auto& named : raw) {
    const std::string& name = named.first;
    Tensor& tensor = named.second;
    const Field* const f = find(name);
    if (f == nullptr) return invalid("[data] the data set has no field '{}'", name);
    if (tensor.dims().empty() || !fits(*f, tensor, tensor.dims()[0]))
      return invalid("[data] '{}' is {}, expected raw samples, {} each", name, to_string(tensor.type()),
                     to_string(f->sample));
    if (!f->is_normalised()) continue;
    DS_ASSIGN(tensor, guarded("[data] while normalising", [&] { return normalised(*f, tensor); }));
  }
  return raw;
}

Result<BatchType> Dataset::type_of(const Batch& batch) const {
  BatchType type;
  for (const Field& f : fields_) {
    const auto it = batch.find(f.name);
    if (it == batch.end()) return invalid("[data] the batch lacks '{}'", f.name);
    type.push_back({f.name, it->second.type(), f.role});
  }
  for (const auto& [name, tensor] : batch)
    if (find(name) == nullptr) return invalid("[data] the batch has '{}', which the data set has not", name);
  return type;
}

int64_t Dataset::counted(const Batch& batch) const {
  const Field* labels = nullptr;
  int64_t fields = 0;
  for (const Field& f : fields_) {
    if (!f.is_classes()) continue;
    labels = &f;
    ++fields;
  }
  const auto it = labels == nullptr ? batch.end() : batch.find(labels->name);
  if (fields == 1 && it != batch.end() && it->second.dtype() == DType::kI64) {
    const std::span<const int64_t> values(it->second.as<int64_t>(), static_cast<size_t>(it->second.num_elements()));
    return it->second.num_elements() -
           (labels->ignored ? std::count(values.begin(), values.end(), *labels->ignored) : 0);
  }
  if (batch.empty()) return 0;
  const graph::Dims& dims = batch.begin()->second.dims();
  return dims.empty() ? 1 : dims[0];
}

std::string Dataset::input_spec() const {
  const std::string source = source_spec();
  if (source.empty()) return "";
  Json spec = parse_json<Json>(source, false), fields = Json::object();
  if (!spec.is_object()) return source;  // open_input() says what is wrong with it
  for (const Field* f : inputs()) {
    Json& field = fields[f->name] = Json::object();
    if (!f->is_normalised()) continue;
    field["scale"] = f->normalisation.scale;
    field["mean"] = f->normalisation.mean;
    field["stddev"] = f->normalisation.stddev;
  }
  spec["fields"] = std::move(fields);
  return dump_json(spec);
}

Result<uint32_t> Dataset::checksum() const {
  std::string text;  // what is known of each part
  const auto add = [&](std::string_view what, std::span<const std::byte> bytes) {
    text += fmt::format("{} {:08x}\n", what, io::crc32c(bytes));
  };
  const std::vector<std::string> paths = files();
  for (const std::string& path : paths) text += path + "\n";
  std::vector<const Field*> all;
  for (const Field& f : fields_) all.push_back(&f);
  const int64_t n = paths.empty() ? std::min(size(), samples_per_part(all)) : size();
  DS_ASSIGN(const Batch batch, paths.empty() ? read_raw(all_rows(n)) : read_targets(all_rows(n)));
  for (const auto& [name, tensor] : batch)
    add(fmt::format("{} {}", name, to_string(tensor.type())),
        {static_cast<const std::byte*>(tensor.data()), tensor.num_bytes()});
  return io::crc32c(std::as_bytes(std::span(text)));
}

}  // namespace deepseek::data
