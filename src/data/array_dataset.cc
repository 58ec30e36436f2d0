// Data sets whose samples, or targets, are tensors in memory.
#include <algorithm>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/threads.h"
#include "data/dataset.h"
#include "io/image.h"

namespace deepseek::data {
namespace {

using graph::Tensor;

// Gives the fields the types of their tensors; `size`: how many files there are, or -1; then how many samples.
Status describe(std::vector<Field>& fields, const Batch& tensors, int64_t& size) {
  std::string first;
  for (Field& f : fields) {
    const auto it = tensors.find(f.name);
    if (it == tensors.end()) return invalid("[data] the field '{}' has no tensor", f.name);
    const graph::Dims& dims = it->second.dims();
    if (dims.empty())
      return invalid("[data] '{}' is {}, expected a first axis of samples", f.name, to_string(it->second.type()));
    if (size >= 0 && dims[0] != size) {
      const std::string others = first.empty()
                                     ? fmt::format("there are {} files but {} samples of '{}'", size, dims[0], f.name)
                                     : fmt::format("'{}' has {} samples but '{}' {}", first, size, f.name, dims[0]);
      return make_error(ErrorCode::kDataCorrupt, "[data] {}; the files do not belong together", others);
    }
    if (size < 0) first = f.name;
    size = dims[0];
    f.sample = {it->second.dtype(), graph::Dims(dims.begin() + 1, dims.end())};
  }
  for (const auto& [name, tensor] : tensors)
    if (std::none_of(fields.begin(), fields.end(), [&, &n = name](const Field& f) { return f.name == n; }))
      return invalid("[data] the tensor '{}' has no field that describes it", name);
  return {};
}

}  // namespace

ArrayDataset::ArrayDataset(std::vector<Field> fields, Batch tensors, int64_t size, std::string source_spec)
    : Dataset(std::move(fields)), tensors_(std::move(tensors)), size_(size), source_spec_(std::move(source_spec)) {}

Result<DatasetPtr> ArrayDataset::create(std::vector<Field> fields, Batch tensors, std::string source_spec) {
  int64_t size = -1;
  DS_TRY(describe(fields, tensors, size));
  return DatasetPtr(
      new ArrayDataset(std::move(fields), std::move(tensors), std::max<int64_t>(size, 0), std::move(source_spec)));
}

Result<Batch> ArrayDataset::rows(std::span<const int64_t> indices) const {
  Batch out;
  for (const auto& [name, tensor] : tensors_) out.emplace(name, gather_rows(tensor, indices));
  return out;
}

Result<Batch> ArrayDataset::target_rows(std::span<const int64_t> indices) const {
  Batch out;
  for (const Field* f : targets()) out.emplace(f->name, gather_rows(tensors_.at(f->name), indices));
  return out;
}

Status ArrayDataset::check() const {
  for (const Field& f : fields_) DS_TRY(check_values(f, tensors_.at(f.name)));
  return {};
}

PictureDataset::PictureDataset(std::vector<Field> fields, std::vector<std::string> files, graph::Dims image,
                               Batch targets)
    : Dataset(std::move(fields)), files_(std::move(files)), image_(std::move(image)), targets_(std::move(targets)) {}

Result<DatasetPtr> PictureDataset::create(Field input, std::vector<std::string> files, graph::Dims image,
                                          std::vector<Field> targets, Batch target_tensors) {
  if (image.size() != 3 || (image[0] != 1 && image[0] != 3) || image[1] < 1 || image[2] < 1)
    return invalid("[data] pictures are to become {}, expected [1 or 3, height, width]", graph::to_string(image));
  auto size = static_cast<int64_t>(files.size());
  for (const Field& f : targets)
    if (f.role != Role::kTarget)
      return invalid("[data] '{}' is an input beside pictures on disk, expected targets alone", f.name);
  DS_TRY(describe(targets, target_tensors, size));
  input.role = Role::kInput;
  input.sample = {DType::kU8, image};
  std::vector<Field> fields = {std::move(input)};
  std::move(targets.begin(), targets.end(), std::back_inserter(fields));
  return DatasetPtr(
      new PictureDataset(std::move(fields), std::move(files), std::move(image), std::move(target_tensors)));
}

Result<Batch> PictureDataset::rows(std::span<const int64_t> indices) const {
  const auto n = static_cast<int64_t>(indices.size());
  const int64_t channels = image_[0], height = image_[1], width = image_[2];
  const auto bytes = static_cast<size_t>(channels * height * width);
  Tensor out(DType::kU8, {n, channels, height, width});
  std::mutex mutex;
  int64_t failed_at = n;  // the first one is named, whichever thread is faster
  Status failed;
  parallel_for(n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const std::string& file = files_[static_cast<size_t>(indices[static_cast<size_t>(i)])];
      Result<Tensor> image = io::load_image(file, channels, std::max(height, width));
      if (!image.ok()) {
        const std::lock_guard lock(mutex);
        if (i < failed_at) failed = std::move(image).status();
        failed_at = std::min(failed_at, i);
        return;
      }
      const Tensor covering = io::cover_image(*image, height, width);
      std::copy_n(covering.as<uint8_t>(), bytes, out.as<uint8_t>() + static_cast<size_t>(i) * bytes);
    }
  });
  DS_TRY(failed);
  DS_ASSIGN(Batch batch, target_rows(indices));
  batch.emplace(fields_[0].name, std::move(out));
  return batch;
}

Result<Batch> PictureDataset::target_rows(std::span<const int64_t> indices) const {
  Batch out;
  for (const auto& [name, tensor] : targets_) out.emplace(name, gather_rows(tensor, indices));
  return out;
}

Status PictureDataset::check() const {
  for (const Field* f : targets()) DS_TRY(check_values(*f, targets_.at(f->name)));
  return {};
}

std::string PictureDataset::source_spec() const {
  return dump_json(nlohmann::ordered_json{{"source", "image-folder"},
                                          {"size", image_[1]},
                                          {"width", image_[2]},
                                          {"channels", image_[0]},
                                          {"field", fields_[0].name}});
}

}  // namespace deepseek::data
