// Data sets and augmentation from Python.
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "binding.h"
#include "data/augment.h"
#include "data/augment_signals.h"
#include "data/color.h"
#include "data/sources.h"
#include "python_dataset.h"
#include "training.h"

namespace deepseek::python {

using namespace graph;

namespace {

void bind_augment(nb::module_& m) {
  nb::class_<data::ImageAugmenter>(m, "ImageAugmenter")
      .def_static(
          "create",
          [](std::vector<std::string> methods, std::vector<double> probabilities, double alpha, uint64_t seed,
             int64_t crop_padding, double cutout_size, double rotation, double color, int64_t ops, int64_t magnitude) {
            return unwrap(data::ImageAugmenter::create({std::move(methods), std::move(probabilities), alpha, seed,
                                                        crop_padding, cutout_size, rotation, color, ops, magnitude}));
          },
          nb::arg("methods"), nb::arg("probabilities"), nb::arg("alpha"), nb::arg("seed"), nb::arg("crop_padding"),
          nb::arg("cutout_size"), nb::arg("rotation"), nb::arg("color"), nb::arg("randaugment_ops"),
          nb::arg("randaugment_magnitude"))
      .def_prop_ro("mixes", &data::ImageAugmenter::mixes)
      .def("partners", &data::ImageAugmenter::partners, nb::arg("n"), nb::arg("epoch"))
      .def(
          "transform",
          [](const data::ImageAugmenter& a, const Array& images, bool channels_last, int64_t epoch,
             const std::vector<int64_t>& ids, const std::vector<int64_t>& partners) {
            const Tensor in = to_tensor(images);
            auto mixed = without_gil([&] { return a.transform(in, channels_last, epoch, ids, partners); });
            data::ImageAugmenter::Mixed done = unwrap(std::move(mixed));
            return nb::make_tuple(to_numpy(done.images), done.weights);
          },
          nb::arg("images"), nb::arg("channels_last"), nb::arg("epoch"), nb::arg("ids"), nb::arg("partners"));
  m.def(
      "augment_series",
      [](std::vector<std::string> methods, std::vector<double> probabilities, uint64_t seed, double jitter,
         double scaling, double window, const Array& series, int64_t epoch, const std::vector<int64_t>& ids) {
        const data::SeriesOptions options{std::move(methods), std::move(probabilities), seed, jitter, scaling, window};
        const Tensor in = to_tensor(series);
        auto out = without_gil([&] { return data::augment_series(options, in, epoch, ids); });
        return to_numpy(unwrap(std::move(out)));
      },
      nb::arg("methods"), nb::arg("probabilities"), nb::arg("seed"), nb::arg("jitter"), nb::arg("scaling"),
      nb::arg("window"), nb::arg("series"), nb::arg("epoch"), nb::arg("ids"));
  m.def(
      "augment_volumes",
      [](std::vector<std::string> methods, std::vector<double> probabilities, uint64_t seed, double displacement,
         double contrast, double brightness, int64_t grid, const Array& images, std::optional<Array> masks,
         int64_t epoch, const std::vector<int64_t>& ids) {
        const data::VolumeOptions options{
            std::move(methods), std::move(probabilities), seed, displacement, contrast, brightness, grid};
        const Tensor in = to_tensor(images), mask = masks ? to_tensor(*masks) : Tensor();
        auto out = without_gil([&] { return data::augment_volumes(options, in, mask, epoch, ids); });
        data::Volumes volumes = unwrap(std::move(out));
        std::optional<NumpyArray> moved;
        if (mask.defined()) moved = to_numpy(volumes.masks);
        return nb::make_tuple(to_numpy(volumes.images), moved);
      },
      nb::arg("methods"), nb::arg("probabilities"), nb::arg("seed"), nb::arg("displacement"), nb::arg("contrast"),
      nb::arg("brightness"), nb::arg("grid"), nb::arg("images"), nb::arg("masks").none(), nb::arg("epoch"),
      nb::arg("ids"));
  m.def(
      "change_color",
      [](const std::string& what, double amount, const Array& image) {
        Tensor in = to_tensor(image).clone();
        const graph::Dims& d = in.dims();
        if (d.size() != 3 || in.dtype() != DType::kU8) throw nb::value_error("expected a u8 image [H, W, C]");
        const data::ImageShape shape{1, d[0], d[1], d[2]};
        auto* x = in.as<uint8_t>();
        const auto factor = static_cast<float>(amount);
        if (what == "brightness") data::enhance(shape, data::Enhancement::kBrightness, factor, x);
        if (what == "contrast") data::enhance(shape, data::Enhancement::kContrast, factor, x);
        if (what == "saturation") data::enhance(shape, data::Enhancement::kSaturation, factor, x);
        if (what == "sharpness") data::enhance(shape, data::Enhancement::kSharpness, factor, x);
        if (what == "posterize") data::posterize(shape, static_cast<int>(amount), x);
        if (what == "solarize") data::solarize(shape, static_cast<int>(amount), x);
        if (what == "autocontrast") data::autocontrast(shape, x);
        if (what == "equalize") data::equalize(shape, x);
        return to_numpy(in);
      },
      nb::arg("what"), nb::arg("amount"), nb::arg("image"), "What color and randaugment are made of.");
  m.def("symmetric_beta", &data::symmetric_beta, nb::arg("alpha"), nb::arg("key"));
}

// name, role is input, class names, scale, mean, stddev, ignored label
using FieldState = std::tuple<std::string, bool, std::vector<std::string>, double, std::vector<double>,
                              std::vector<double>, std::optional<int64_t>>;

std::vector<data::Field> to_fields(const std::vector<FieldState>& states) {
  std::vector<data::Field> fields;
  for (const auto& [name, is_input, class_names, scale, mean, stddev, ignored] : states)
    fields.push_back(
        {name, is_input ? data::Role::kInput : data::Role::kTarget, {}, {scale, mean, stddev}, class_names, ignored});
  return fields;
}

std::vector<FieldState> to_states(const std::vector<data::Field>& fields) {
  std::vector<FieldState> out;
  for (const data::Field& f : fields)
    out.emplace_back(f.name, f.role == data::Role::kInput, f.class_names, f.normalisation.scale, f.normalisation.mean,
                     f.normalisation.stddev, f.ignored);
  return out;
}

nb::dict all_to_python(const data::Batch& batch) {
  nb::dict out;
  for (const auto& [name, tensor] : batch) out[name.c_str()] = to_numpy(tensor);
  return out;
}

std::map<std::string, NumpyArray> arrays_of(const data::Batch& batch) {
  std::map<std::string, NumpyArray> out;
  for (const auto& [name, tensor] : batch) out.emplace(name, to_numpy(tensor));
  return out;
}

// The data set below a view, and which of its samples are seen.
std::pair<const data::Dataset*, std::optional<std::vector<int64_t>>> flat(const Samples& s) {
  const auto* view = dynamic_cast<const data::DatasetView*>(s.data.get());
  if (view == nullptr) return {s.data.get(), std::nullopt};
  return {view->base().get(), view->indices()};
}

using DatasetState =
    std::tuple<bool, std::vector<FieldState>, std::optional<std::vector<int64_t>>, std::vector<FieldState>,
               std::map<std::string, NumpyArray>, std::string, std::vector<std::string>, Dims>;

DatasetState dataset_state(const Samples& s) {
  const auto [base, indices] = flat(s);
  const std::vector<FieldState> seen = to_states(s.data->fields()), own = to_states(base->fields());
  if (const auto* arrays = dynamic_cast<const data::ArrayDataset*>(base))
    return {s.paired, seen, indices, own, arrays_of(arrays->tensors()), arrays->source_spec(), {}, {}};
  if (const auto* pictures = dynamic_cast<const data::PictureDataset*>(base))
    return {s.paired,         seen, indices, own, arrays_of(pictures->target_tensors()), "", pictures->files(),
            pictures->image()};
  throw nb::type_error(
      "this data set can't be pickled: it is read from a source that is open; make it again, or load it by name");
}

void set_dataset_state(Samples* self, const DatasetState& state) {
  const auto& [paired, seen, indices, own, arrays, spec, files, image] = state;
  data::Batch tensors;
  for (const auto& [name, object] : arrays) {
    Array array;
    if (!array.read(object)) throw nb::type_error("the pickled data set is damaged");
    tensors[name] = to_tensor(array);
  }
  std::vector<data::Field> fields = to_fields(own);
  data::DatasetPtr base;
  if (files.empty()) {
    base = unwrap(data::ArrayDataset::create(std::move(fields), std::move(tensors), spec));
  } else {
    const data::Field input = fields.at(0);
    fields.erase(fields.begin());
    base = unwrap(data::PictureDataset::create(input, files, image, std::move(fields), std::move(tensors)));
  }
  std::vector<data::Field> as_seen = to_fields(seen);
  for (data::Field& f : as_seen)
    if (const data::Field* same = base->find(f.name)) f.sample = same->sample;
  if (indices) base = unwrap(data::DatasetView::subset(base, *indices));
  new (self) Samples{unwrap(data::DatasetView::with_fields(base, std::move(as_seen))), paired};
}

// Of fields as they are stored.
nb::object raw(const Samples& s, const std::vector<const data::Field*>& fields) {
  const auto [base, indices] = flat(s);
  const auto* arrays = dynamic_cast<const data::ArrayDataset*>(base);
  const auto* pictures = dynamic_cast<const data::PictureDataset*>(base);
  const bool inputs = !fields.empty() && fields[0]->role == data::Role::kInput;
  if (pictures != nullptr && inputs)
    throw nb::value_error("the inputs are pictures on disk; read(indices) decodes some of them");
  data::Batch batch;
  if (arrays != nullptr && !indices) {
    batch = arrays->tensors();  // no copies
  } else {
    const std::vector<int64_t> all = data::all_rows(s.data->size());
    batch = unwrap(without_gil([&] { return inputs ? s.data->read_raw(all) : s.data->read_targets(all); }));
  }
  if (fields.size() == 1) return to_numpy(batch.at(fields[0]->name));
  nb::dict out;
  for (const data::Field* f : fields) out[f->name.c_str()] = to_numpy(batch.at(f->name));
  return out;
}

nb::dict describe(const data::Field& f) {
  nb::dict out;
  out["role"] = f.role == data::Role::kInput ? "input" : "target";
  out["dtype"] = std::string(to_string(f.sample.dtype));
  out["shape"] = nb::tuple(nb::cast(f.sample.dims));
  if (f.role == data::Role::kTarget) {
    out["class_names"] = f.class_names;
    out["ignore_index"] = f.ignored;
  } else {
    out["scale"] = f.normalisation.scale;
    out["mean"] = f.normalisation.mean;
    out["stddev"] = f.normalisation.stddev;
  }
  return out;
}

// What one field has, or a dict by name.
template <class F>
nb::object of_one(const std::vector<const data::Field*>& fields, const F& get) {
  if (fields.size() == 1) return get(*fields[0]);
  nb::dict out;
  for (const data::Field* f : fields) out[f->name.c_str()] = get(*f);
  return out;
}

}  // namespace

void bind_data(nb::module_& m) {
  bind_augment(m);
  nb::class_<Samples>(m, "Dataset")
      .def(
          "__init__",
          [](Samples* self, const std::vector<FieldState>& fields, const std::map<std::string, Array>& arrays,
             bool paired) {
            data::Batch tensors;
            for (const auto& [name, array] : arrays) tensors[name] = to_tensor(array);
            new (self) Samples{unwrap(data::ArrayDataset::create(to_fields(fields), std::move(tensors))), paired};
          },
          nb::arg("fields"), nb::arg("arrays"), nb::arg("paired"))
      .def(
          "__init__",
          [](Samples* self, const std::vector<FieldState>& states,
             const std::vector<std::pair<std::string, Dims>>& types, int64_t size, nb::callable read, bool paired) {
            std::vector<data::Field> fields = to_fields(states);
            for (size_t i = 0; i < fields.size(); ++i)
              fields[i].sample = {unwrap(parse_dtype(types.at(i).first)), types.at(i).second};
            new (self) Samples{std::make_shared<PythonDataset>(std::move(fields), size, std::move(read)), paired};
          },
          nb::arg("fields"), nb::arg("types"), nb::arg("size"), nb::arg("read"), nb::arg("paired"))
      .def("__getstate__", &dataset_state)
      .def("__setstate__", &set_dataset_state)
      .def("validate", [](const Samples& s) { unwrap(without_gil([&] { return s.data->validate(); })); })
      .def("__len__", [](const Samples& s) { return s.data->size(); })
      .def(
          "read",
          [](const Samples& s, const std::vector<int64_t>& indices) -> nb::object {
            const data::Batch batch = unwrap(without_gil([&] { return s.data->read(indices); }));
            if (s.paired && batch.size() == 2)
              return nb::make_tuple(to_numpy(batch.at(s.data->inputs()[0]->name)),
                                    to_numpy(batch.at(s.data->targets()[0]->name)));
            return all_to_python(batch);
          },
          nb::arg("indices"), "The samples as a model takes them: (x, y) of a pair, else a dict of arrays by name.")
      .def(
          "subset",
          [](const Samples& s, const std::vector<int64_t>& indices) {
            return Samples{unwrap(data::DatasetView::subset(s.data, indices)), s.paired};
          },
          nb::arg("indices"), "The samples at these indices, in this order, as a data set.")
      .def_prop_ro(
          "inputs", [](const Samples& s) { return raw(s, s.data->inputs()); },
          "As they are stored; where there are several, a dict by name.")
      .def_prop_ro(
          "targets", [](const Samples& s) { return raw(s, s.data->targets()); },
          "As they are stored; where there are several, a dict by name.")
      .def_prop_ro(
          "files", [](const Samples& s) { return s.data->files(); }, "Paths of the samples, where they are on disk.")
      .def_prop_ro(
          "fields",
          [](const Samples& s) {
            nb::dict out;
            for (const data::Field& f : s.data->fields()) out[f.name.c_str()] = describe(f);
            return out;
          },
          "What each named tensor is: role, dtype, shape of one sample (-1: it varies), class_names, scale, mean, "
          "stddev, ignore_index.")
      .def_prop_ro("class_names",
                   [](const Samples& s) -> nb::object {
                     return of_one(s.data->targets(), [](const data::Field& f) { return nb::cast(f.class_names); });
                   })
      .def_prop_ro("mean",
                   [](const Samples& s) {
                     return of_one(s.data->inputs(),
                                   [](const data::Field& f) { return nb::cast(f.normalisation.mean); });
                   })
      .def_prop_ro("stddev",
                   [](const Samples& s) {
                     return of_one(s.data->inputs(),
                                   [](const data::Field& f) { return nb::cast(f.normalisation.stddev); });
                   })
      .def_prop_ro("scale",
                   [](const Samples& s) {
                     return of_one(s.data->inputs(),
                                   [](const data::Field& f) { return nb::cast(f.normalisation.scale); });
                   })
      .def_prop_ro(
          "ignore_index",
          [](const Samples& s) {
            return of_one(s.data->targets(), [](const data::Field& f) { return nb::cast(f.ignored); });
          },
          "The label of targets that do not count, if there is one.")
      .def_ro("paired", &Samples::paired, "Whether it is inputs and targets without names.");
  m.def("open_dataset", [](const std::string& name, const std::map<std::string, std::string>& parameters) {
    const data::Splits s = unwrap(without_gil([&] { return data::open_dataset(name, parameters); }));
    nb::list parts;
    for (const data::DatasetPtr& part : {s.train, s.validation, s.test})
      parts.append(part == nullptr ? nb::none() : nb::cast(Samples{part, part->targets().size() == 1}));
    return nb::tuple(parts);
  });
  m.def("source_names", [] {
    std::vector<std::string> names;
    for (const data::Source& source : data::sources()) names.push_back(source.name);
    return names;
  });
  m.def("sources_text", [](const std::optional<std::string>& name) {
    return name ? unwrap(data::source_text(*name)) : data::sources_text();
  });
}

}  // namespace deepseek::python
