// The extension module `_tables`: files, pipelines. Tables come in and go out as Arrow streams (the C data interface),
// so that no column is copied. A module of its own, since it loads Arrow.
#include <nanobind/nanobind.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "base/memory.h"
#include "capsules.h"
#include "tables/files.h"
#include "tables/pipeline.h"
#include "tables/report.h"
#include "tables/split.h"

namespace nb = nanobind;
using namespace deepseek;
using namespace deepseek::tables;
using deepseek::python::Acquired;
using deepseek::python::from_capsule;
using deepseek::python::to_capsule;
using deepseek::python::unwrap;
using deepseek::python::without_gil;

NB_MODULE(_tables, m) {
  deepseek::python::watch_the_end();
  deepseek::python::bind_features(m);
  m.def(
      "open",
      [](const std::filesystem::path& path, const std::string& format, std::map<std::string, std::string> types,
         std::vector<std::string> columns, const std::string& delimiter, bool header, const std::string& encoding,
         std::vector<std::string> null_values, bool whole) {
        FileOptions options{format, std::move(types), std::move(columns),    delimiter,
                            header, encoding,         std::move(null_values)};
        return to_capsule(unwrap(without_gil([&]() -> Result<std::shared_ptr<arrow::RecordBatchReader>> {
          if (!whole) return open_table(path.string(), options);
          DS_ASSIGN(const Table table, read_table(path.string(), options));
          return std::shared_ptr<arrow::RecordBatchReader>(std::make_shared<arrow::TableBatchReader>(table));
        })));
      },
      nb::arg("path"), nb::arg("format"), nb::arg("types"), nb::arg("columns"), nb::arg("delimiter"), nb::arg("header"),
      nb::arg("encoding"), nb::arg("null_values"), nb::arg("whole"),
      "An Arrow stream of the file's batches; `whole`: read at once.");
  m.def("null_values", [] { return FileOptions().null_values; });
  m.def("machine_memory", [] { return machine_memory(); });
  m.def(
      "write",
      [](nb::handle stream, const std::filesystem::path& path, const std::string& format, const std::string& delimiter,
         bool header) {
        const Table table = from_capsule(stream);
        unwrap(without_gil([&] {
          return write_table(*table, path.string(), {.format = format, .delimiter = delimiter, .header = header});
        }));
      },
      nb::arg("stream"), nb::arg("path"), nb::arg("format"), nb::arg("delimiter"), nb::arg("header"));
  m.def("steps", [] {
    nb::list list;
    for (const StepInfo& info : steps()) {
      OptionTable options;
      const auto step = info.make();
      step->describe(options);
      list.append(nb::make_tuple(info.kind, info.doc, options.help()));
    }
    return list;
  });

  m.def(
      "split",
      [](nb::handle stream, std::vector<double> fractions, const std::string& stratify, const std::string& group,
         const std::string& time, uint64_t seed) {
        const Table table = from_capsule(stream);
        return unwrap(without_gil([&] { return split(*table, {std::move(fractions), stratify, group, time, seed}); }));
      },
      nb::arg("stream"), nb::arg("fractions"), nb::arg("stratify"), nb::arg("group"), nb::arg("time"), nb::arg("seed"));
  m.def(
      "leaks",
      [](const std::vector<nb::object>& streams, const std::vector<std::string>& columns, bool near) {
        std::vector<Table> parts;
        for (const nb::object& stream : streams) parts.push_back(from_capsule(stream));
        nb::list found;
        for (const Leak& leak : unwrap(without_gil([&] { return leaks(parts, columns, near); })))
          found.append(nb::make_tuple(leak.part, leak.other, leak.rows, leak.near));
        return found;
      },
      nb::arg("streams"), nb::arg("columns"), nb::arg("near"));

  m.def(
      "report",
      [](nb::handle stream, const std::string& title, const std::string& target) {
        const Table table = from_capsule(stream);
        const Report r = unwrap(without_gil([&] { return report(table, {title, target}); }));
        return nb::make_tuple(r.html, r.warnings);
      },
      nb::arg("stream"), nb::arg("title"), nb::arg("target"));

  nb::class_<Pipeline>(m, "Pipeline")
      .def_static(
          "parse",
          [](const std::string& yaml, const std::string& where) {
            return unwrap(without_gil([&] { return Pipeline::parse(yaml, where); }));
          },
          nb::arg("yaml"), nb::arg("where"))
      .def_static(
          "load",
          [](const std::filesystem::path& path) {
            return unwrap(without_gil([&] { return Pipeline::load(path.string()); }));
          },
          nb::arg("path"))
      .def(
          "save", [](const Pipeline& p, const std::filesystem::path& path) { python::check(p.save(path.string())); },
          nb::arg("path"))
      .def(
          "to_sql",
          [](const Pipeline& p, const std::string& dialect, const std::string& from) {
            return unwrap(p.to_sql(dialect, from));
          },
          nb::arg("dialect"), nb::arg("from_"))
      .def_prop_ro("fitted", &Pipeline::fitted)
      .def("notes", &Pipeline::notes)
      .def("__len__", &Pipeline::size)
      .def(
          "fit_transform",
          [](Pipeline& p, nb::handle stream) {
            const Table table = from_capsule(stream);
            return to_capsule(unwrap(without_gil([&] { return p.fit_transform(table); })));
          },
          nb::arg("stream"))
      .def(
          "fit_stream",
          [](Pipeline& p, nb::callable open) {
            const OpenStream stream = [&]() -> Result<std::shared_ptr<arrow::RecordBatchReader>> {
              const Acquired gil;
              nb::object capsule = open();
              auto* c = static_cast<ArrowArrayStream*>(PyCapsule_GetPointer(capsule.ptr(), "arrow_array_stream"));
              if (c == nullptr) throw nb::python_error();
              return from_arrow(arrow::ImportRecordBatchReader(c));
            };
            unwrap(without_gil([&] { return p.fit(stream); }));
          },
          nb::arg("open"), "open() gives a new stream of the same batches each time.")
      .def(
          "transform",
          [](const Pipeline& p, nb::handle stream) {
            const Table table = from_capsule(stream);
            return to_capsule(unwrap(without_gil([&] { return p.transform(table); })));
          },
          nb::arg("stream"));
}
