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

}  // namespace

void bind_data(nb::module_& m) {
  bind_augment(m);
  nb::class_<data::Dataset>(m, "Dataset")
      .def(
          "__init__",
          [](data::Dataset* self, const Array& inputs, const Array& targets, std::vector<std::string> class_names,
             double scale, std::vector<double> mean, std::vector<double> stddev, std::optional<int64_t> ignored) {
            new (self) data::Dataset{std::move(class_names), to_tensor(inputs), to_tensor(targets), scale,
                                     std::move(mean),        std::move(stddev)};
            self->ignored = ignored;
          },
          nb::arg("inputs"), nb::arg("targets"), nb::arg("class_names"), nb::arg("scale"), nb::arg("mean"),
          nb::arg("stddev"), nb::arg("ignore_index").none() = nb::none())
      .def("__getstate__",
           [](const data::Dataset& d) {
             const nb::object inputs = d.files.empty() ? nb::object(to_numpy(d.inputs)) : nb::none();
             return nb::make_tuple(d.class_names, inputs, to_numpy(d.targets), d.scale, d.mean, d.stddev, d.files,
                                   d.image, d.ignored);
           })
      .def("__setstate__",
           [](data::Dataset* self,
              const std::tuple<std::vector<std::string>, std::optional<Array>, Array, double, std::vector<double>,
                               std::vector<double>, std::vector<std::string>, Dims, std::optional<int64_t>>& state) {
             const auto& [class_names, inputs, targets, scale, mean, stddev, files, image, ignored] = state;
             new (self) data::Dataset{
                 class_names, inputs ? to_tensor(*inputs) : Tensor(), to_tensor(targets), scale, mean, stddev, files,
                 image};
             self->ignored = ignored;
           })
      .def("validate", [](const data::Dataset& d) { unwrap(without_gil([&] { return d.validate(); })); })
      .def("__len__", &data::Dataset::size)
      .def("read",
           [](const data::Dataset& d, const std::vector<int64_t>& indices) {
             Tensor x, y;
             unwrap(without_gil([&] { return d.read(indices, x, y); }));
             return nb::make_tuple(to_numpy(x), to_numpy(y));
           })
      .def_prop_ro("inputs",
                   [](const data::Dataset& d) {
                     if (!d.files.empty())
                       throw nb::value_error("the inputs are pictures on disk; read(indices) decodes some of them");
                     return to_numpy(d.inputs);
                   })
      .def_ro("files", &data::Dataset::files, "Paths of the pictures, where the inputs are on disk.")
      .def_prop_ro("targets", [](const data::Dataset& d) { return to_numpy(d.targets); })
      .def_ro("class_names", &data::Dataset::class_names)
      .def_ro("mean", &data::Dataset::mean)
      .def_ro("stddev", &data::Dataset::stddev)
      .def_ro("scale", &data::Dataset::scale)
      .def_ro("ignore_index", &data::Dataset::ignored, "The label of targets that do not count, if there is one.");
  m.def("open_dataset", [](const std::string& name, const std::map<std::string, std::string>& parameters) {
    data::Splits s = unwrap(without_gil([&] { return data::open_dataset(name, parameters); }));
    return nb::make_tuple(std::move(s.train), std::move(s.validation), std::move(s.test));
  });
  m.def("dataset_names", &data::dataset_names);
}

}  // namespace deepseek::python
