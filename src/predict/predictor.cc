#include "predict/predictor.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

namespace deepseek::predict {

using graph::Tensor;

Result<std::string> model_path(const std::string& run_or_model) {
  std::error_code error;
  if (!std::filesystem::is_directory(run_or_model, error)) return run_or_model;
  const std::string inside = (std::filesystem::path(run_or_model) / "model.dsk").string();
  if (std::filesystem::exists(inside, error)) return inside;
  const bool run = std::filesystem::exists(std::filesystem::path(run_or_model) / "config.yaml", error);
  return make_error(ErrorCode::kNotFound, "'{}' holds no model.dsk; {}", run_or_model,
                    run ? "the run has not finished an epoch: go on with `deepseek train ... --resume`"
                        : "expected the folder of a run, or a model file");
}

std::vector<double> probabilities(const Tensor& logits, int64_t row, int64_t classes) {
  const int64_t width = logits.num_elements() / logits.dims()[0];
  if (width == 1 && classes == 2) {
    const double p = 1 / (1 + std::exp(-logits.at(row)));
    return {1 - p, p};
  }
  std::vector<double> out(static_cast<size_t>(width));
  double most = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int64_t c = 0; c < width; ++c) most = std::max(most, logits.at(row * width + c));
  for (int64_t c = 0; c < width; ++c) sum += out[static_cast<size_t>(c)] = std::exp(logits.at(row * width + c) - most);
  for (double& p : out) p /= sum;
  return out;
}

Result<data::TablePart> Predictor::part_of(const std::map<std::string, Tensor>& outputs, int64_t rows) const {
  data::TablePart part;
  for (const infer::Port& port : session_->signature().outputs) {
    const Tensor& out = outputs.at(port.name);
    if (out.dims().empty() || out.dims()[0] != rows)
      return make_error(ErrorCode::kUnsupported, "the model's output '{}' is {}, expected a row for each of {} samples",
                        port.name, to_string(out.type()), rows);
    const std::string prefix = outputs.size() == 1 ? "" : port.name + "_";
    const std::vector<std::string>& names = session_->class_names(port.name);
    const auto classes = static_cast<int64_t>(names.size());
    const int64_t width = out.num_elements() / rows;
    if (classes > 0 && (width == classes || (width == 1 && classes == 2))) {
      std::vector<std::string> best;
      std::vector<double> probability;
      std::vector<std::vector<double>> all(classes <= kMostClasses ? names.size() : 0);
      for (int64_t row = 0; row < rows; ++row) {
        const std::vector<double> p = probabilities(out, row, classes);
        const auto top = static_cast<size_t>(std::max_element(p.begin(), p.end()) - p.begin());
        best.push_back(names[top]);
        probability.push_back(p[top]);
        for (size_t c = 0; c < all.size(); ++c) all[c].push_back(p[c]);
      }
      part.push_back({prefix + "prediction", std::move(best)});
      part.push_back({prefix + "probability", std::move(probability)});
      for (size_t c = 0; c < all.size(); ++c) part.push_back({prefix + "probability_" + names[c], std::move(all[c])});
      continue;
    }
    for (int64_t c = 0; c < width; ++c) {
      std::vector<float> values;
      for (int64_t row = 0; row < rows; ++row) values.push_back(static_cast<float>(out.at(row * width + c)));
      part.push_back(
          {width == 1 ? prefix + "prediction" : fmt::format("{}prediction_{}", prefix, c), std::move(values)});
    }
  }
  return part;
}

Status Predictor::predict(const std::vector<std::string>& paths, const data::WritePart& write,
                          const Progress& progress) {
  std::vector<data::Input> inputs;
  int64_t total = 0, done = 0;
  for (const std::string& path : paths) {
    DS_ASSIGN(data::Input input, data::open_input(session_->preprocessing(), path));
    total += input.data->size();
    inputs.push_back(std::move(input));
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    const data::Input& input = inputs[i];
    for (int64_t begin = 0; begin < input.data->size(); begin += options_.batch_size) {
      const int64_t rows = std::min(options_.batch_size, input.data->size() - begin);
      std::vector<int64_t> indices(static_cast<size_t>(rows));
      for (int64_t row = 0; row < rows; ++row) indices[static_cast<size_t>(row)] = begin + row;
      DS_ASSIGN(data::Batch batch, input.data->read(indices));
      for (const data::Field* target : input.data->targets()) batch.erase(target->name);
      DS_ASSIGN(const auto outputs, session_->run(batch));
      DS_ASSIGN(data::TablePart part, part_of(outputs, rows));
      data::TablePart labelled;
      if (paths.size() > 1 && input.label_name == "row")
        labelled.push_back({"input", std::vector<std::string>(static_cast<size_t>(rows), paths[i])});
      const auto first = input.labels.begin() + begin;
      labelled.push_back({input.label_name, std::vector<std::string>(first, first + rows)});
      if (input.label_name == "row") {  // numbers of rows
        std::vector<int64_t> numbers;
        for (const int64_t index : indices) numbers.push_back(index);
        labelled.back().values = std::move(numbers);
      }
      for (data::TableColumn& c : part) labelled.push_back(std::move(c));
      DS_TRY(write(labelled));
      done += rows;
      if (progress && !progress(done, total))
        return make_error(ErrorCode::kInterrupted, "stopped after {} of {} samples", done, total);
    }
  }
  return {};
}

}  // namespace deepseek::predict
