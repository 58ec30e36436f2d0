// The command line. Exit codes: 0 done, 1 failed, 2 wrong usage or config, 130 interrupted.
#include <dlfcn.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "backends/builtin/register.h"
#include "base/console.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "base/threads.h"
#include "base/version.h"
#include "explain/op_docs.h"
#include "explain/pass_log.h"
#include "explain/profile_report.h"
#include "graph/text.h"
#include "io/atomic_file.h"
#include "models/zoo.h"
#include "ops/registry.h"
#include "predict/predictor.h"
#include "predict/print.h"
#include "program.h"
#include "train/doctor.h"
#include "train/run.h"

using namespace deepseek;

namespace {

std::string evaluation_text(const train::Evaluation& e) {
  std::string text = fmt::format("test loss     {:.4f}", e.loss);
  for (const auto& [name, value] : e.terms) text += fmt::format("\n{:<13} {:.4f}", "test " + name, value);
  for (const auto& [name, value] : e.metrics)
    text += name == "accuracy" ? fmt::format("\ntest accuracy {:.2f} %", 100 * value)
                               : fmt::format("\n{:<13} {:.4f}", "test " + name, value);
  return text;
}

// A config that is also tuned by trains as it stands.
Status read_config(const std::string& path, const std::vector<std::string>& overrides, train::RunOptions& options) {
  OptionTable table = train::option_table(options);
  table.ignore("tune");
  return table.load_file(path, overrides);
}

int train_command(const std::string& config, const std::vector<std::string>& overrides, bool resume) {
  train::RunOptions options;
  if (Status s = read_config(config, overrides, options); !s.ok()) return failed(s);
  const InterruptGuard interrupt;
  ProgressBar bar = progress_bar("samples");
  train::Hooks hooks;
  hooks.message = [&](const std::string& text) {
    bar.clear();
    print_out("{}\n", text);
  };
  hooks.progress = [&](const train::StepReport& r) {
    bar.update(r.step, r.first, r.total, r.samples, r.text);
    return !interrupt.requested();
  };
  const Result<train::RunResult> result = train::run_training(options, resume, hooks);
  bar.clear();
  if (!result.ok()) return failed(result.status());
  if (result->fit.interrupted) return 130;
  const std::string& folder = options.train.output;
  if (result->test) print_out("\n{}\n", evaluation_text(*result->test));
  std::string pictures;
  for (const char* name : {"loss.png", "accuracy.png", "confusion.png"})
    if (::access((folder + "/" + name).c_str(), F_OK) == 0) pictures += std::string(" ") + name;
  print_out("run folder    {} (history.csv{})\n", folder, pictures);
  print_out("predict       deepseek predict {} NEW_DATA -o predictions.csv\n", folder);
  print_out("take along    deepseek export {} -o model.dsk\n", folder);
  std::string same;  // what this call had overridden
  for (const std::string& o : overrides)
    if (!o.starts_with("train.epochs=")) same += " --set " + o;
  print_out("train longer  deepseek train {} --resume{} --set train.epochs={}\n", config, same,
            options.train.epochs + 1);
  print_out("see curves    xdg-open {}/loss.png   or   tensorboard --logdir {}\n", folder, folder);
  return 0;
}

int evaluate_command(const std::string& folder) {
  Result<train::TrainedRun> run = train::load_run(folder);
  if (!run.ok()) return failed(run.status());
  if (run->data.test == nullptr)
    return failed(invalid("{}: its data have no test part; set data.test_fraction or a test file", folder));
  const Result<train::Evaluation> result = train::Trainer(run->model, run->options).evaluate(run->data.test);
  if (!result.ok()) return failed(result.status());
  print_out("{}\n", evaluation_text(*result));
  return 0;
}

// Without a file, a line for each sample on standard output.
int predict_command(const std::string& model, const std::vector<std::string>& inputs, const std::string& output,
                    const std::string& device, int64_t batch_size) {
  const Result<std::string> path = predict::model_path(model);
  if (!path.ok()) return failed(path.status());
  const Result<std::shared_ptr<infer::Session>> session = infer::Session::open(*path, {.device = device});
  if (!session.ok()) return failed(session.status());
  predict::Predictor predictor(*session, {.batch_size = batch_size});
  const InterruptGuard interrupt;
  ProgressBar bar = progress_bar("samples");
  const auto progress = [&](int64_t done, int64_t total) {
    if (!output.empty()) bar.update(done, 0, total, done, [] { return std::string(); });
    return !interrupt.requested();
  };
  int64_t samples = 0;
  const auto counted = [&](const data::WritePart& write) {
    return [&, write](const data::TablePart& part) {
      samples += std::visit([](const auto& v) { return static_cast<int64_t>(v.size()); }, part.at(0).values);
      return write(part);
    };
  };
  Status status;
  if (output.empty())
    status = predictor.predict(inputs, counted(predict::print_part), progress);
  else
    status = data::write_table(
        output, [&](const data::WritePart& write) { return predictor.predict(inputs, counted(write), progress); });
  bar.clear();
  if (!status.ok()) return interrupt.requested() ? 130 : failed(status);
  if (!output.empty()) print_out("{} predictions in {}\n", samples, output);
  return 0;
}

int export_command(const std::string& run, const std::string& output) {
  const Result<std::string> path = predict::model_path(run);
  if (!path.ok()) return failed(path.status());
  const Result<infer::ModelFile> model = infer::load_model(*path);
  if (!model.ok()) return failed(model.status());
  if (Status s = infer::save_model(output, *model); !s.ok()) return failed(s);
  for (const infer::Port& port : model->signature.inputs) print_out("input   {:<12} {}\n", port.name, to_string(port));
  for (const infer::Port& port : model->signature.outputs) print_out("output  {:<12} {}\n", port.name, to_string(port));
  std::error_code error;
  print_out("model   {} ({})\n", output, format_bytes(std::filesystem::file_size(output, error)));
  return 0;
}

struct ExplainFlags {
  bool passes = false;
  explain::PassLogOptions log;
};

int explain_command(const std::string& config, const std::vector<std::string>& overrides, const ExplainFlags& flags) {
  train::RunOptions options;
  if (Status s = read_config(config, overrides, options); !s.ok()) return failed(s);
  explain::PassLog log;
  Result<std::shared_ptr<const runtime::Program>> program =
      train::training_program(options, flags.passes ? log.observer() : passes::PassObserver());
  if (!program.ok()) return failed(program.status());
  if (flags.passes) {
    const Result<std::string> text = explain::pass_log_text(log, flags.log);
    if (!text.ok()) return failed(text.status());
    console_out(*text);
    return 0;
  }
  print_out("{}\n{} nodes, {} of memory, {} of it for intermediate values\n", graph::print((*program)->graph()),
            (*program)->graph().nodes().size(), format_bytes((*program)->memory_bytes()),
            format_bytes((*program)->arena_bytes()));
  for (const std::string& note : (*program)->notes()) print_out("{}\n", note);
  for (const runtime::NodeReport& r : (*program)->report()) {
    print_out("{:<40} {:<20} {:<28} {}\n", r.scope, r.op, r.implementation, r.types);
    for (const std::string& refusal : r.refusals) print_out("{:<40}   refused by {}\n", "", refusal);
  }
  return 0;
}

struct ProfileFlags {
  explain::ProfileOptions how;
  int64_t depth = 2, slowest = 12;
  std::string trace, json;
};

Status write_file(const std::string& path, const std::string& text) {
  return io::write_file_atomic(path, std::as_bytes(std::span(text.data(), text.size())));
}

int profile_command(const std::string& config, const std::vector<std::string>& overrides, const ProfileFlags& flags) {
  train::RunOptions options;
  if (Status s = read_config(config, overrides, options); !s.ok()) return failed(s);
  const Result<explain::StepProfile> profile = train::profile_training(options, flags.how);
  if (!profile.ok()) return failed(profile.status());
  print_out("{}", explain::profile_text(*profile, flags.depth, static_cast<size_t>(flags.slowest)));
  if (!flags.json.empty())
    if (Status s = write_file(flags.json, explain::profile_json(*profile, flags.depth)); !s.ok()) return failed(s);
  if (!flags.trace.empty()) {
    if (Status s = write_file(flags.trace, explain::chrome_trace(*profile)); !s.ok()) return failed(s);
    print_out("\ntrace of one step in {}: open it in https://ui.perfetto.dev or chrome://tracing\n", flags.trace);
  }
  return 0;
}

int devices_command(bool measure) {
  for (const runtime::BackendEntry& entry : runtime::registered_backends()) {
    print_out("{:<6} {}\n", entry.name, entry.doc);
    const Result<runtime::BackendPtr> device = runtime::open_backend(entry.name);
    if (!device.ok()) {
      print_out("       not usable: {}\n", device.status().message());
      continue;
    }
    std::string properties;
    for (const auto& [name, value] : (*device)->properties()) properties += fmt::format("{} {}, ", name, value);
    print_out("       {}{} of memory\n", properties, format_bytes((*device)->memory_bytes()));
    if (measure) print_out("       peak {}\n", explain::to_string((*device)->measure_peak()));
  }
  return 0;
}

int ops_command(const std::string& name, bool table, const std::string& device) {
  const Result<runtime::BackendPtr> backend = runtime::open_backend(device);
  if (!backend.ok()) return failed(backend.status());
  const std::vector<std::string> chosen = name.empty() ? std::vector<std::string>() : std::vector<std::string>{name};
  const Result<std::string> text = table          ? explain::op_table(ops::registry(), **backend, chosen)
                                   : name.empty() ? explain::op_list(ops::registry())
                                                  : explain::op_page(ops::registry(), name, **backend);
  if (!text.ok()) return failed(text.status());
  console_out(*text);
  return 0;
}

// Exit code 1 where something needs to be done.
int doctor_command() {
  const auto load_error = [](const char* library) {
    return dlopen(library, RTLD_LAZY) != nullptr ? std::string() : std::string(dlerror());
  };
  std::error_code error;
  bool well = true;
  for (const train::Finding& f : train::examine(std::filesystem::current_path(error).string(), load_error)) {
    print_out("{:<4} {:<16} {}\n", f.advice.empty() ? "ok" : "BAD", f.subject, f.text);
    if (!f.advice.empty()) print_out("{:<21} {}\n", "", f.advice);
    well = well && f.advice.empty();
  }
  return well ? 0 : 1;
}

// As git does: the command is the program deepseek-<name> beside this one. Returns only if it can't be started.
int run_beside(const std::string& name, char** arguments) {
  std::error_code error;
  const std::filesystem::path own = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::string path = own.parent_path() / ("deepseek-" + name);
  // Only to say what is missing, which the other program's loader would not.
  if (name == "data" && dlopen("libdeepseek_tables.so", RTLD_LAZY) == nullptr)
    return failed(make_error(ErrorCode::kUnsupported,
                             "tables need Arrow, which comes with pyarrow: pip install \"deepseek[data]\" ({})",
                             dlerror()));
  execv(path.c_str(), arguments);
  return failed(make_error(ErrorCode::kIo, "cannot start '{}': {}", path, std::strerror(errno)));
}

int run(int argc, char** argv) {
  backends::builtin::register_backends();
  for (const char* name : {"data", "tune"})
    if (argc > 1 && std::string_view(argv[1]) == name) return run_beside(name, argv + 1);
  CLI::App app{"DeepSeek: from raw data to a monitored model"};
  app.name("deepseek");
  app.require_subcommand(1);
  app.set_version_flag("--version", fmt::format("deepseek {}", version()));
  std::string config, folder;
  std::vector<std::string> overrides;
  bool resume = false;
  train::RunOptions defaults;
  const std::string keys = "\nKeys of the config:\n" + train::option_table(defaults).help();

  // As --set device=NAME.
  const auto device_option = [&](CLI::App* command) {
    command->add_option_function<std::string>(
        "--device", [&](const std::string& name) { overrides.push_back("device=" + name); },
        "what runs it; `deepseek devices` lists what there is");
  };
  CLI::App* train = app.add_subcommand("train", "Train a model as a config says");
  train->add_option("config", config, "run.yaml")->required();
  device_option(train);
  train->add_option("--set", overrides, "override a key: --set train.epochs=3")
      ->take_all()
      ->expected(1)
      ->allow_extra_args(false);
  train->add_flag("--resume", resume, "continue from the run folder's last checkpoint");
  train->add_flag_function(
      "--check-numerics", [&](int64_t) { overrides.push_back("train.check_numerics=true"); },
      "find where a loss or gradient that is not finite comes from: the layer and the op");
  train->footer(keys + "\nExample: deepseek train examples/fashion_mnist.yaml --set optimizer.learning_rate=0.02");

  std::vector<std::string> inputs;
  std::string output, where(runtime::kDefaultDevice);
  int64_t batch_size = predict::PredictOptions().batch_size;
  CLI::App* predict = app.add_subcommand("predict", "Predict for new raw data: a picture, a folder, a table");
  predict->add_option("model", folder, "run folder or model file")->required();
  predict->add_option("input", inputs, "raw data of the kind that the model was trained on")->required();
  predict->add_option("-o,--output", output,
                      "write a table: .csv, .tsv, .parquet, .arrow or .jsonl; default: a line for each sample");
  predict->add_option("--device", where, "what runs it")->capture_default_str();
  predict->add_option("--batch-size", batch_size, "samples at once")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->capture_default_str();
  predict->footer(
      "Examples: deepseek predict runs/wine new.csv -o predictions.csv\n          deepseek predict shirts.dsk shirt.png");

  CLI::App* export_ = app.add_subcommand("export", "Write a trained run's model as one file, which needs nothing else");
  export_->add_option("run", folder, "run folder, or another model file")->required();
  export_->add_option("-o,--output", output, "the file: model.dsk")->required();
  export_->footer("Example: deepseek export runs/wine -o wine.dsk");

  CLI::App* explain =
      app.add_subcommand("explain", "Show the training step's graph, the kernel of each node and why others refused");
  explain->add_option("config", config, "run.yaml")->required();
  device_option(explain);
  explain->add_option("--set", overrides, "override a key")->take_all()->expected(1)->allow_extra_args(false);
  ExplainFlags explain_flags;
  // With the name of a pass: that one alone.
  CLI::Option* passes = explain->add_option("--passes", explain_flags.log.pass,
                                            "instead: the graph after each pass that changed it, or after PASS alone");
  passes->expected(0, 1)->type_name("[PASS]");
  explain->add_flag("--diff", explain_flags.log.diff, "of the passes only the lines that changed");
  explain->add_flag("--time", explain_flags.log.time, "what each pass took; without --passes no graphs");
  explain->footer(
      "Examples: deepseek explain examples/fashion_mnist.yaml\n          deepseek explain examples/fashion_mnist.yaml "
      "--passes simplify --diff\n          deepseek explain examples/fashion_mnist.yaml --time");

  ProfileFlags flags;
  CLI::App* profile = app.add_subcommand("profile", "Show where the time of a training step goes");
  profile->add_option("config", config, "run.yaml")->required();
  device_option(profile);
  profile->add_option("--set", overrides, "override a key")->take_all()->expected(1)->allow_extra_args(false);
  profile->add_option("--steps", flags.how.steps, "steps that count; times are their medians")
      ->check(CLI::Range(int64_t{1}, int64_t{100000}))
      ->capture_default_str();
  profile->add_option("--warmup", flags.how.warmup, "steps before them")
      ->check(CLI::Range(int64_t{1}, int64_t{100000}))
      ->capture_default_str();
  profile->add_option("--depth", flags.depth, "parts of a layer's path by which nodes are grouped")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  profile->add_option("--nodes", flags.slowest, "how many of the slowest nodes to list")
      ->check(CLI::Range(0, 100000))
      ->capture_default_str();
  profile->add_option("--trace", flags.trace, "also write one step for chrome://tracing or Perfetto to this file");
  profile->add_option("--json", flags.json, "also write all numbers to this file");
  profile->footer(
      "FLOPs count each addition, multiplication and function once; bytes are those of a node's distinct inputs and "
      "outputs.\nGFLOP/s and GB/s are followed by their share of this machine's peak, measured in the same run. Data "
      "that stays in\ncaches may exceed it.\n"
      "Example: deepseek profile examples/fashion_mnist.yaml --steps 10 --trace step.json");

  CLI::App* evaluate = app.add_subcommand("evaluate", "Loss and metrics of a trained run on its test data");
  evaluate->add_option("run", folder, "run folder")->required();
  evaluate->footer("Example: deepseek evaluate runs/fashion_mnist");

  app.add_subcommand("data", "Clean and split tables: deepseek data --help");  // run_beside() takes it before
  app.add_subcommand("tune", "Search for the best config of a run: deepseek tune --help");

  CLI::App* models = app.add_subcommand("models", "List the architectures of the zoo");
  models->footer("Example: deepseek models");

  std::string op;
  bool table = false;
  std::string device(runtime::kDefaultDevice);
  CLI::App* ops = app.add_subcommand("ops", "List the ops, or show one: operands, attributes, what runs it");
  ops->add_option("name", op, "an op");
  ops->add_option("--device", device, "what would run it")->capture_default_str();
  ops->add_flag("--table", table, "all as Markdown: which implementation runs each op in each element type");
  ops->footer("Examples: deepseek ops softmax\n          deepseek ops --table > ops.md");

  CLI::App* devices = app.add_subcommand("devices", "List the devices: what each is, or why it is not usable here");
  bool measure = false;
  devices->add_flag("--measure", measure, "also measure FLOP/s and memory bandwidth, in about 0.3 s");
  devices->footer("Example: deepseek devices --measure");

  CLI::App* doctor =
      app.add_subcommand("doctor", "Check the installation: devices, memory, disk, libraries, a training");
  doctor->footer("Example: deepseek doctor");

  if (const auto code = parse_arguments(app, argc, argv)) return *code;
  explain_flags.passes = passes->count() > 0 || explain_flags.log.time || explain_flags.log.diff;
  explain_flags.log.graphs = passes->count() > 0 || explain_flags.log.diff;
  if (*train) return train_command(config, overrides, resume);
  if (*predict) return predict_command(folder, inputs, output, where, batch_size);
  if (*export_) return export_command(folder, output);
  if (*evaluate) return evaluate_command(folder);
  if (*models) {
    for (const std::string& name : deepseek::models::names())
      print_out("{:<16} {}\n", name, deepseek::models::summary(name));
    return 0;
  }
  if (*explain) return explain_command(config, overrides, explain_flags);
  if (*ops) return ops_command(op, table, device);
  if (*doctor) return doctor_command();
  if (*profile) return profile_command(config, overrides, flags);
  return devices_command(measure);
}

}  // namespace

int main(int argc, char** argv) {
  return run_main([&] { return run(argc, argv); });
}
