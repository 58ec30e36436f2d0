// Arrays of NumPy's files as fields: in which type, and how images lie in them. What is found of the training data reads
// any other. Test: tests/python/test_array_source.py
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "data/dataset.h"
#include "io/npy.h"

namespace deepseek::data {

// How an array of images becomes [N, C, H, W].
enum class Layout { kAsIs, kAddChannel, kMoveChannels };

struct ArrayInput {
  std::string name;
  Layout layout = Layout::kAsIs;
  graph::TensorType sample;  // as the field has it
};

// Of training data. Bytes stay, bools and reals become f32, other numbers i64. `layout`: auto (of bytes, [N,H,W], and
// [N,H,W,C] with 1, 3 or 4 channels, are images), channels_last (any [N,H,W,C], and bytes [N,H,W]) or as_is.
Result<ArrayInput> describe_input(const std::string& name, const io::NpyArray& array, const std::string& layout);
// Errors: text, another shape, and numbers that the type cannot hold. `where` names the data in messages.
Result<graph::Tensor> input_tensor(const ArrayInput& input, const io::NpyArray& array, const std::string& where);
// i64 labels where `classes`, else f32; [N,1] becomes [N]. Text is looked up in the field's class_names.
Result<graph::Tensor> target_tensor(const Field& field, bool classes, const io::NpyArray& array,
                                    const std::string& where);

// As JSON, {name: {"type", "dims", "layout"}}, and back from {"inputs": that}.
std::string to_spec(const std::vector<ArrayInput>& inputs);
Result<std::vector<ArrayInput>> from_spec(const std::string& spec);

}  // namespace deepseek::data
