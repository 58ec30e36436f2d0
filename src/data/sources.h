// Data sets by name, as a run's config asks for them, split into train, validation and test; and raw data as inputs of a
// trained model. A source is registered by name: those of this room, those of libraries of their own (tables), plugins'.
// Invariant: every data set returned has passed Dataset::validate(), and the split depends only on the seed.
// Test: tests/data/sources_test.cc
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "data/dataset.h"

namespace deepseek::data {

using Params = std::map<std::string, std::string>;  // lists as comma-separated text, maps as JSON

struct Splits {
  DatasetPtr train;
  DatasetPtr validation;  // nullptr where validation_fraction is 0, or too small for one sample
  DatasetPtr test;        // nullptr where there is none
};

// What one file or folder of raw data gives a trained model.
struct Input {
  DatasetPtr data;                  // inputs only, or with targets where the raw data have them
  std::vector<std::string> labels;  // what names each sample in a table of predictions: paths, row numbers
  std::string label_name = "row";   // of that column: "file" for paths
};

struct Key {
  std::string name, doc, value;  // its default as text, "" where it has none
  bool required = false;
};

struct Source {
  std::string name, doc;  // one line
  std::vector<Key> keys;  // what a config may say beside name
  std::string example;    // a `data:` section
  std::function<Result<Splits>(const Params&)> open;
  // Raw data at `path` as a model's inputs, by what source_spec() of the training data said (JSON without "source").
  // data::open_input() does the rest: it takes the inputs that the model had, with their normalisation, and validates.
  // None where the source's data come as arrays only.
  std::function<Result<Input>(const std::string& spec, const std::string& path)> open_input;
};

// All of these may be called by many threads at once. A second source of a name takes the first one's place.
void register_source(Source source);
std::vector<Source> sources();  // by name; those of libraries where these can be loaded
// Errors: kInvalidArgument, with the nearest name; what a source's library lacks, where it can't be loaded.
Result<Source> find_source(const std::string& name);

// For people: a line for each source; a source's keys with their defaults, and an example.
std::string sources_text();
Result<std::string> source_text(const std::string& name);

// After check_keys(). Errors: kInvalidArgument (unknown name or parameter, named with what exists), kNotFound, kIo,
// kDataCorrupt.
Result<Splits> open_dataset(const std::string& name, const Params& params);
// `spec`: Dataset::input_spec() of the training data.
Result<Input> open_input(const std::string& spec, const std::string& path);

// What sources are made of. The keys that split() reads: validation_fraction, seed.
std::vector<Key> split_keys();
// Unknown keys, with the nearest one, and required ones that are not there.
Status check_keys(const Source& source, const Params& params);
std::string text(const Params& params, const std::string& key, const std::string& otherwise);
template <class T>
Result<T> number(const Params& params, const std::string& key, T otherwise);  // int64_t, uint64_t, double
std::vector<std::string> list(const Params& params, const std::string& key);  // comma-separated, trimmed
// Takes validation_fraction of `all` by a seeded permutation, fits the normalisation on the rest (unless not to `fit`),
// and gives it to all three. `test` may be nullptr.
Result<Splits> split(const DatasetPtr& all, DatasetPtr test, const Params& params, bool fit = true);

}  // namespace deepseek::data
