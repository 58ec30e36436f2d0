// The command line. Exit codes: 0 done, 1 failed, 2 wrong usage or config, 130 interrupted.
#include <fmt/core.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <csignal>
#include <fstream>
#include <sstream>

#include "backends/cpu/cpu_backend.h"
#include "base/threads.h"
#include "graph/text.h"
#include "io/png.h"
#include "train/trainer.h"

using namespace deepseek;

namespace {

volatile std::sig_atomic_t stop_requested = 0;
void on_signal(int) {
  if (stop_requested) _exit(130);  // the second one means it
  stop_requested = 1;
}

int failed(const Status& status) {
  fmt::print(stderr, "error: {}\n", status.to_string());
  return status.code() == ErrorCode::kInvalidArgument ? 2 : 1;
}

// The config file, then the overrides; mistakes of both are shown together.
Status read_config(const std::string& path, const std::vector<std::string>& overrides, train::RunOptions& options) {
  std::ifstream file(path);
  if (!file) return make_error(ErrorCode::kInvalidArgument, "{}: no such file", path);
  std::stringstream text;
  text << file.rdbuf();
  OptionTable table = train::option_table(options);
  std::string mistakes;
  const auto collect = [&](const Status& s) {
    if (!s.ok()) mistakes += (mistakes.empty() ? "" : "\n") + s.message();
  };
  collect(table.load_yaml(text.str(), path));
  for (size_t i = 0; i < overrides.size(); ++i) collect(table.set(overrides[i], fmt::format("--set #{}", i + 1)));
  return mistakes.empty() ? Status() : Status(ErrorCode::kInvalidArgument, mistakes);
}

// Redraws one line on a terminal; otherwise prints a line every ten seconds.
class ProgressLine {
 public:
  bool operator()(int64_t done, int64_t total, const std::string& text) {
    using Clock = std::chrono::steady_clock;
    const Clock::time_point now = Clock::now();
    if (first_ < 0) {
      first_ = done - 1;
      start_ = now;
    }
    const bool terminal = isatty(STDERR_FILENO) != 0;
    if (now - drawn_ > (terminal ? std::chrono::milliseconds(200) : std::chrono::seconds(10)) || done == total) {
      drawn_ = now;
      const double seconds = std::chrono::duration<double>(now - start_).count();
      const double rate = seconds > 0 ? static_cast<double>(done - first_) / seconds : 0;
      const int filled = static_cast<int>(30 * done / std::max<int64_t>(total, 1));
      fmt::print(stderr, "{}[{:#<{}}{:.<{}}] {}/{}  {:.1f} steps/s  {:.0f} s left  {}{}", terminal ? "\r\033[K" : "",
                 "", filled, "", 30 - filled, done, total, rate,
                 rate > 0 ? static_cast<double>(total - done) / rate : 0, text, terminal ? "" : "\n");
      open_ = terminal;
    }
    return !stop_requested;
  }
  void finish_line() {
    if (open_) fmt::print(stderr, "\n");
    open_ = false;
  }

 private:
  int64_t first_ = -1;
  bool open_ = false;
  std::chrono::steady_clock::time_point start_, drawn_;
};

int train_command(const std::string& config, const std::vector<std::string>& overrides, bool resume) {
  train::RunOptions options;
  if (Status s = read_config(config, overrides, options); !s.ok()) return failed(s);
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  ProgressLine line;
  const auto message = [&](const std::string& text) {
    line.finish_line();
    fmt::print("{}\n", text);
    std::fflush(stdout);
  };
  Result<train::RunResult> result = train::run_training(
      options, resume,
      {message, [&](int64_t done, int64_t total, const std::string& text) { return line(done, total, text); }});
  line.finish_line();
  if (!result.ok()) return failed(result.status());
  if (result->interrupted) return 130;
  fmt::print(
      "\ntest accuracy {:.2f} %, test loss {:.4f}\nrun folder    {} (loss.png, accuracy.png, confusion.png, "
      "history.csv)\nnext          deepseek predict {} --index 0\n              deepseek train {} --resume --set "
      "train.epochs={}\n              tensorboard --logdir {}\n",
      100 * result->test.accuracy, result->test.loss, options.train.output, options.train.output, config,
      options.train.epochs + 1, options.train.output);
  return 0;
}

// A picture of the data's size as a data set of one sample, with the training data's normalisation.
Result<data::Dataset> picture(const std::string& path, const data::Dataset& like) {
  DS_ASSIGN(const graph::Tensor image, io::load_png(path));
  graph::Dims expected = like.inputs.dims();
  expected[0] = 1;
  graph::Dims dims = image.dims();
  dims.insert(dims.begin(), 1);
  if (dims != expected)
    return invalid("{}: expected a picture of [channels,height,width] {}, got {}; resize or convert it", path,
                   graph::to_string(std::span(expected).subspan(1)), graph::to_string(image.dims()));
  data::Dataset one = like;
  one.inputs = image.reshaped(dims);
  one.targets = graph::Tensor::zeros(DType::kI64, {1});
  return one;
}

int predict_command(const std::string& folder, int64_t index, const std::string& image) {
  Result<train::TrainedModel> run = train::load_run(folder);
  if (!run.ok()) return failed(run.status());
  data::Dataset test = run->data.test;
  if (!image.empty()) {
    Result<data::Dataset> one = picture(image, test);
    if (!one.ok()) return failed(one.status());
    test = std::move(*one);
    index = 0;
  }
  graph::Tensor x, y;
  if (Status s = test.read(std::span(&index, 1), x, y); !s.ok()) return failed(s);
  train::StateStore state(*run->model, 0);
  Result<graph::Graph> graph = train::evaluation_graph(*run->model, x.type(), nullptr, {});
  if (!graph.ok()) return failed(graph.status());
  auto program = backends::cpu::CpuBackend().compile(*graph, {});
  if (!program.ok()) return failed(program.status());
  Result<std::vector<graph::Tensor>> out = state.run(**program, {{"x", x}});
  if (!out.ok()) return failed(out.status());
  const graph::Tensor& logits = (*out)[0];
  int64_t best = 0;
  double total = 0;
  for (int64_t i = 0; i < logits.num_elements(); ++i)
    if (logits.at(i) > logits.at(best)) best = i;
  for (int64_t i = 0; i < logits.num_elements(); ++i) total += std::exp(logits.at(i) - logits.at(best));
  if (image.empty())
    fmt::print("test sample {}: {} ({:.1f} %), labelled {}\n", index, test.class_names[best], 100 / total,
               test.class_names[y.as<int64_t>()[0]]);
  else
    fmt::print("{}: {} ({:.1f} %)\n", image, test.class_names[best], 100 / total);
  return 0;
}

int explain_command(const std::string& config, const std::vector<std::string>& overrides) {
  train::RunOptions options;
  if (Status s = read_config(config, overrides, options); !s.ok()) return failed(s);
  Result<std::shared_ptr<const runtime::Program>> program = train::training_program(options);
  if (!program.ok()) return failed(program.status());
  fmt::print("{}\n{} nodes, arena {:.1f} MiB\n", graph::print((*program)->graph()), (*program)->graph().nodes().size(),
             static_cast<double>((*program)->arena_bytes()) / (1 << 20));
  for (const runtime::NodeReport& r : (*program)->report()) {
    fmt::print("{:<40} {:<20} {:<28} {}\n", r.scope, r.op, r.implementation, r.types);
    for (const std::string& refusal : r.refusals) fmt::print("{:<40}   refused by {}\n", "", refusal);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"DeepSeek: from raw data to a monitored model"};
  app.require_subcommand(1);
  std::string config, folder, image;
  std::vector<std::string> overrides;
  bool resume = false;
  int64_t index = 0;
  train::RunOptions defaults;
  const std::string keys = "\nKeys of the config:\n" + train::option_table(defaults).help();

  CLI::App* train = app.add_subcommand("train", "Train a model as a config says");
  train->add_option("config", config, "run.yaml")->required();
  train->add_option("--set", overrides, "override a key: --set train.epochs=3")
      ->take_all()
      ->expected(1)
      ->allow_extra_args(false);
  train->add_flag("--resume", resume, "continue from the run folder's last checkpoint");
  train->footer(keys + "\nExample: deepseek train examples/fashion_mnist.yaml --set optimizer.learning_rate=0.02");

  CLI::App* predict = app.add_subcommand("predict", "Classify a picture or a test sample with a trained run");
  predict->add_option("run", folder, "run folder")->required();
  predict->add_option("--index", index, "which test sample");
  predict->add_option("--image", image, "PNG file of the training data's size");
  predict->footer(
      "Examples: deepseek predict runs/fashion_mnist --index 7\n          deepseek predict runs/fashion_mnist --image "
      "shirt.png");

  CLI::App* explain =
      app.add_subcommand("explain", "Show the training step's graph, the kernel of each node and why others refused");
  explain->add_option("config", config, "run.yaml")->required();
  explain->add_option("--set", overrides, "override a key")->take_all()->expected(1)->allow_extra_args(false);
  explain->footer("Example: deepseek explain examples/fashion_mnist.yaml");

  CLI::App* devices = app.add_subcommand("devices", "List the devices that can train here");
  devices->footer("Example: deepseek devices");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (*train) return train_command(config, overrides, resume);
  if (*predict) return predict_command(folder, index, image);
  if (*explain) return explain_command(config, overrides);
  fmt::print("cpu  {} threads, {}\n", num_threads(), backends::cpu::isa_name());
  return 0;
}
