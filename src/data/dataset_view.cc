// Views of data sets, and the one that fits its normalisation.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/strings.h"
#include "data/dataset.h"
#include "data/parts.h"

namespace deepseek::data {

using graph::Tensor;

namespace {

constexpr int64_t kPart = int64_t{1} << 24;  // bytes

}  // namespace

int64_t samples_per_part(const std::vector<const Field*>& fields) {
  double bytes = 0;
  for (const Field* f : fields) {
    auto sample = static_cast<double>(size_of(f->sample.dtype));
    for (const int64_t size : f->sample.dims) sample *= static_cast<double>(std::max<int64_t>(size, 1));
    bytes += sample;
  }
  return std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(kPart) / std::max(bytes, 1.0)));
}

std::vector<int64_t> rows_between(int64_t begin, int64_t end) {
  std::vector<int64_t> indices(static_cast<size_t>(end - begin));
  std::iota(indices.begin(), indices.end(), begin);
  return indices;
}

std::vector<int64_t> all_rows(int64_t n) { return rows_between(0, n); }

DatasetView::DatasetView(DatasetPtr base, std::optional<std::vector<int64_t>> indices, std::vector<Field> fields)
    : Dataset(std::move(fields)), base_(std::move(base)), indices_(std::move(indices)) {
  const auto* view = dynamic_cast<const DatasetView*>(base_.get());
  if (view == nullptr) return;
  if (indices_)
    indices_ = view->in_base(*indices_);
  else
    indices_ = view->indices_;
  base_ = DatasetPtr(view->base_);  // the view may be gone after this
}

std::shared_ptr<DatasetView> DatasetView::all(DatasetPtr base) {
  std::vector<Field> fields = base->fields();
  return std::shared_ptr<DatasetView>(new DatasetView(std::move(base), std::nullopt, std::move(fields)));
}

Result<DatasetPtr> DatasetView::subset(const DatasetPtr& base, std::span<const int64_t> indices) {
  for (const int64_t index : indices)
    if (index < 0 || index >= base->size())
      return invalid("[data] sample index {} is out of range, the data set has {} samples", index, base->size());
  return DatasetPtr(new DatasetView(base, std::vector<int64_t>(indices.begin(), indices.end()), base->fields()));
}

Result<DatasetPtr> DatasetView::with_fields(const DatasetPtr& base, std::vector<Field> fields) {
  for (const Field& f : fields) {
    const Field* const theirs = base->find(f.name);
    if (theirs == nullptr) {
      std::vector<std::string> names;
      for (const Field& other : base->fields()) names.push_back(other.name);
      return invalid("[data] the data set has no field '{}'{}; it has: {}", f.name, did_you_mean(f.name, names),
                     join(names, ", "));
    }
    if (f.sample != theirs->sample)
      return invalid("[data] '{}' cannot become {} per sample, the data set has {}", f.name, to_string(f.sample),
                     to_string(theirs->sample));
  }
  return DatasetPtr(new DatasetView(base, std::nullopt, std::move(fields)));
}

int64_t DatasetView::size() const { return indices_ ? static_cast<int64_t>(indices_->size()) : base_->size(); }

std::vector<int64_t> DatasetView::in_base(std::span<const int64_t> indices) const {
  std::vector<int64_t> out(indices.begin(), indices.end());
  if (indices_)
    for (int64_t& i : out) i = (*indices_)[static_cast<size_t>(i)];
  return out;
}

std::vector<std::string> DatasetView::files() const {
  std::vector<std::string> all = base_->files();
  if (!indices_ || all.empty()) return all;
  std::vector<std::string> out;
  out.reserve(indices_->size());
  for (const int64_t i : *indices_) out.push_back(all[static_cast<size_t>(i)]);
  return out;
}

Result<Batch> DatasetView::rows(std::span<const int64_t> indices) const { return base_->rows(in_base(indices)); }

// A field may be a target here that is an input there.
Result<Batch> DatasetView::target_rows(std::span<const int64_t> indices) const {
  const std::vector<const Field*> ours = targets();
  const bool theirs = std::all_of(ours.begin(), ours.end(),
                                  [&](const Field* f) { return base_->find(f->name)->role == Role::kTarget; });
  return theirs ? base_->target_rows(in_base(indices)) : base_->rows(in_base(indices));
}

Result<DatasetPtr> fit_normalisation(const DatasetPtr& dataset) {
  std::vector<Field> fields = dataset->fields();
  bool any = false;
  for (Field& f : fields) {
    if (!f.is_normalised()) continue;
    f.normalisation.mean.clear();
    f.normalisation.stddev.clear();
    any = true;
  }
  if (!any) {
    DS_TRY(dataset->validate());
    return dataset;
  }
  DS_ASSIGN(const DatasetPtr plain, DatasetView::with_fields(dataset, fields));
  DS_TRY(plain->validate());
  const bool on_disk = !plain->files().empty();
  const int64_t count = on_disk ? std::min(plain->size(), kFitted) : plain->size();
  // What is decoded is decoded once.
  const int64_t step = on_disk ? count : samples_per_part(plain->inputs());
  std::optional<Batch> only;
  const auto each_part = [&](auto&& use) -> Status {
    for (int64_t begin = 0; begin < count; begin += step) {
      std::vector<int64_t> indices = rows_between(begin, std::min(count, begin + step));
      for (int64_t& i : indices) i = i * plain->size() / count;
      if (!only || step < count) {
        DS_ASSIGN(only, plain->read_raw(indices));
      }
      use(*only);
    }
    return {};
  };
  struct Sums {
    int64_t count = 0;
    double sum = 0, squares = 0;
  };
  std::map<std::string, std::vector<Sums>> sums;
  for (const Field& f : fields) {
    if (!f.is_normalised()) continue;
    if (!f.sample.dims.empty() && f.sample.dims[0] < 0)
      return invalid("[data] '{}' has no fixed number of channels, for which means could be fitted", f.name);
    sums[f.name].resize(static_cast<size_t>(f.sample.dims.empty() ? 1 : f.sample.dims[0]));
  }
  // use(sums of the channel, value) for each element of a part.
  const auto each_value = [&](const Batch& part, auto&& use) {
    for (const Field& f : fields) {
      if (!f.is_normalised()) continue;
      std::vector<Sums>& channels = sums[f.name];
      const Tensor& t = part.at(f.name);
      const int64_t row = t.num_elements() / t.dims()[0], plane = row / static_cast<int64_t>(channels.size());
      const auto go = [&]<class T>(const T* values) {
        for (size_t c = 0; c < channels.size(); ++c)
          for (int64_t i = 0; i < t.dims()[0]; ++i) {
            const T* const from = values + i * row + static_cast<int64_t>(c) * plane;
            for (int64_t p = 0; p < plane; ++p) use(channels[c], static_cast<double>(from[p]) * f.normalisation.scale);
          }
      };
      if (t.dtype() == DType::kU8)
        go(t.as<uint8_t>());
      else
        go(t.as<float>());
    }
  };
  // Two passes: a single one loses the deviation of data far from zero.
  DS_TRY(each_part([&](const Batch& part) {
    each_value(part, [](Sums& s, double v) {
      s.sum += v;
      ++s.count;
    });
  }));
  for (auto& [name, channels] : sums)
    for (Sums& s : channels) s.sum /= static_cast<double>(std::max<int64_t>(s.count, 1));  // the mean from here on
  DS_TRY(each_part(
      [&](const Batch& part) { each_value(part, [](Sums& s, double v) { s.squares += (v - s.sum) * (v - s.sum); }); }));
  for (Field& f : fields) {
    if (!f.is_normalised()) continue;
    for (const Sums& s : sums[f.name]) {
      f.normalisation.mean.push_back(s.sum);
      f.normalisation.stddev.push_back(
          std::max(std::sqrt(s.squares / static_cast<double>(std::max<int64_t>(s.count, 1))), 1e-6));
    }
  }
  return DatasetView::with_fields(dataset, std::move(fields));
}

}  // namespace deepseek::data
