// The sources of this room, which sources.cc registers, and what they share. Test: tests/data/sources_test.cc
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "data/sources.h"

namespace deepseek::data {

std::vector<Source> idx_sources();  // "fashion-mnist" and "idx"
Source image_folder_source();
Source array_source();

// Loads the library that has this source, where it is one's of its own. Errors: kUnsupported, with what it lacks.
Status load_source_library(const std::string& source);

// The sorted paths of the pictures in a folder and in the folders below it, other than hidden ones; of a file, its own.
// Errors: kNotFound, also where there are none.
Result<std::vector<std::string>> picture_files(const std::filesystem::path& path);

// Takes test_fraction (by default 0.1; 0: none) of the samples by a seeded permutation.
struct HeldOut {
  DatasetPtr rest, test;  // test: nullptr where there is none
};
Result<HeldOut> hold_out(const DatasetPtr& all, const Params& params);

// Pictures that a CSV file lists with their labels, which become the target "y".
struct ImageLabels {
  std::string csv, folder;  // paths in it are relative to the folder, by default its own
  std::string file_column = "file", label_column = "label";
  bool regression = false;
};
// `known`: class names of the training data; none: those that the file has. Errors: kNotFound, kDataCorrupt, by line.
Result<DatasetPtr> load_image_labels(const ImageLabels& options, Field input, const graph::Dims& image,
                                     const std::vector<std::string>& known);

// A whole number or a text of a spec, by its key. Errors: kDataCorrupt where it isn't there, or out of the bounds.
Result<int64_t> spec_number(const nlohmann::ordered_json& spec, const std::string& key, int64_t least, int64_t most);
Result<std::string> spec_text(const nlohmann::ordered_json& spec, const std::string& key);

inline constexpr int64_t kMaxPixels = 16384;  // a side

}  // namespace deepseek::data
