// The command `deepseek tune`: a program of its own, which loads database clients; `deepseek tune ...` starts it.
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <filesystem>
#include <map>
#include <system_error>
#include <thread>

#include "base/interrupt.h"
#include "base/strings.h"
#include "program.h"
#include "tune/report/charts.h"
#include "tune/report/report.h"
#include "tune/run_tuning.h"
#include "tune/stores/sql_store.h"

using namespace deepseek;
using namespace deepseek::tune;

namespace {

Status read_config(const std::string& path, const std::vector<std::string>& overrides, TuneRunOptions& options) {
  DS_TRY(train::option_table(options).load_file(path, overrides));
  if (options.tune.parameters.text == "{}")
    return invalid("{}: expected tune.parameters, the keys to tune and their ranges; see deepseek tune --help", path);
  return {};
}

// This program again, so many times, with a share of the cores each.
int run_workers(int64_t workers, const InterruptGuard& interrupt, const std::string& config,
                const std::vector<std::string>& overrides) {
  const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
  const std::string threads = std::to_string(std::max<int64_t>(1, static_cast<int64_t>(cores) / workers));
  setenv("OMP_NUM_THREADS", threads.c_str(), 0);
  std::vector<pid_t> running;
  const pid_t parent = getpid();
  Status status;
  for (int64_t k = 0; k < workers; ++k) {
    std::vector<std::string> arguments = {"deepseek tune", config, "--worker", std::to_string(k)};
    for (const std::string& o : overrides) arguments.insert(arguments.end(), {"--set", o});
    std::vector<char*> argv;
    for (std::string& a : arguments) argv.push_back(a.data());
    argv.push_back(nullptr);
    const pid_t child = fork();
    if (child == 0) {
      setpgid(0, 0);  // a terminal's Ctrl-C comes to the parent, which passes it on once
      // A parent that is killed takes them along: they save and end, rather than go on unseen.
      prctl(PR_SET_PDEATHSIG, SIGTERM);
      if (getppid() != parent) _exit(130);
      execv("/proc/self/exe", argv.data());
      _exit(127);
    }
    if (child < 0) {
      status = make_error(ErrorCode::kIo, "cannot start a worker: {}", std::generic_category().message(errno));
      break;
    }
    running.push_back(child);
  }
  int code = status.ok() ? 0 : failed(status);
  bool told = false;
  while (!running.empty()) {
    if ((interrupt.requested() || !status.ok()) && !told) {
      for (const pid_t child : running) kill(child, SIGTERM);
      told = true;
    }
    int status = 0;
    const pid_t ended = waitpid(-1, &status, WNOHANG);
    if (ended <= 0) {
      const timespec pause{0, 50'000'000};
      nanosleep(&pause, nullptr);
      continue;
    }
    running.erase(std::remove(running.begin(), running.end(), ended), running.end());
    if (WIFSIGNALED(status)) {
      print_err("worker {} was killed by signal {}; another takes over its trial\n", ended, WTERMSIG(status));
      code = std::max(code, 1);
    } else {
      code = std::max(code, WEXITSTATUS(status));
    }
  }
  return code;
}

void print_summary(const TuneRunOptions& options, const TuneResult& result) {
  std::map<std::string, int64_t> states;
  for (const Trial& t : result.trials) ++states[to_string(t.state)];
  std::vector<std::string> counts;
  for (const auto& [state, count] : states) counts.push_back(fmt::format("{} {}", count, state));
  print_out("trials      {}\n", join(counts, ", "));
  if (result.best) {
    print_out("best        {} {:.5g}, trial {}\n", result.monitor, result.best->values[0], result.best->number);
    print_out("train it    deepseek train {}\n", result.best_config);
  }
  print_out("look at it  deepseek tune report {}\n",
            options.tune.storage.empty() ? options.tune.output : options.tune.storage);
}

// `worker`: which of those that run_workers() started, which has the summary; none: -1.
int tune_command(const std::string& config, const std::vector<std::string>& overrides, int64_t workers,
                 int64_t worker) {
  TuneRunOptions options;
  if (Status s = read_config(config, overrides, options); !s.ok()) return failed(s);
  const InterruptGuard interrupt;
  const auto interrupted = [&] { return interrupt.requested(); };
  int code = 0;
  TuneResult result;
  if (workers > 1) {
    code = run_workers(workers, interrupt, config, overrides);
    if (code == 0 || code == 1) {  // one that failed is not all
      Result<TuneResult> read = tune_result(options, interrupted);
      if (!read.ok()) return failed(read.status());
      result = std::move(*read);
    }
    result.interrupted = interrupted();
  } else {
    TuneHooks hooks;
    hooks.message = [](const std::string& text) { print_out("{}\n", text); };
    hooks.interrupted = interrupted;
    Result<TuneResult> ran = tune_runs(options, hooks);
    if (!ran.ok()) return failed(ran.status());
    result = std::move(*ran);
  }
  if (result.interrupted) {
    if (worker < 0) print_out("interrupted; go on with: deepseek tune {}\n", config);
    return 130;
  }
  if (worker <= 0 && !result.over.empty()) print_out("{}\n", result.over);
  if (worker < 0 && !result.monitor.empty()) print_summary(options, result);
  return code;
}

bool is_folder(const std::string& place) {
  std::error_code none;  // what can't be looked at is a database's matter
  return std::filesystem::is_directory(place, none);
}

// A folder of `deepseek tune`, a database's file, or a URL.
std::string url_of(const std::string& place) {
  return is_folder(place) ? (std::filesystem::path(place) / "study.db").string() : place;
}

int list_command(const std::string& place) {
  const Result<std::vector<StudySummary>> studies = list_studies(url_of(place));
  if (!studies.ok()) return failed(studies.status());
  print_out("{:<24}{:>8}{:>10}  made\n", "study", "trials", "finished");
  for (const StudySummary& s : *studies) {
    print_out("{:<24}{:>8}{:>10}  {}\n", s.name, s.trials, s.finished, moment_text(s.created));
  }
  return 0;
}

// The study of this name; without one that which a place has alone.
int report_command(const std::string& place, std::string name, std::string output, const std::string& pictures) {
  const std::string url = url_of(place);
  if (name.empty()) {
    const Result<std::vector<StudySummary>> studies = list_studies(url);
    if (!studies.ok()) return failed(studies.status());
    if (studies->size() != 1)
      return failed(invalid("{} has {} studies; say which: --name NAME, of those that deepseek tune list {} shows",
                            place, studies->size(), place));
    name = studies->front().name;
  }
  const Result<std::shared_ptr<Store>> store = open_sql_store(url, name, "");
  if (!store.ok()) return failed(store.status());
  const Result<StudyOptions> options = StudyOptions::parse((*store)->config());
  if (!options.ok()) return failed(options.status());
  std::vector<Trial> trials;
  const Status read = (*store)->transact([&](Transaction& t) -> Status {
    trials = t.trials();
    return {};
  });
  if (!read.ok()) return failed(read);
  const Setting setting{options->space, options->directions, options->seed, {}};
  if (output.empty())
    output = is_folder(place) ? (std::filesystem::path(place) / "report.html").string() : "report.html";
  if (Status s = write_report(output, name, setting, trials); !s.ok()) return failed(s);
  print_out("{}\n", output);
  if (!pictures.empty()) {
    const Result<std::vector<std::string>> files = write_charts(pictures, setting, trials);
    if (!files.ok()) return failed(files.status());
    for (const std::string& file : *files) print_out("{}\n", file);
  }
  return 0;
}

int run(int argc, char** argv) {
  CLI::App app{"Search for the config with which a run comes out best"};
  app.name("deepseek tune");
  std::string config, place;
  std::vector<std::string> overrides;
  int64_t workers = 1;
  TuneRunOptions defaults;
  app.add_option("config", config, "run.yaml, with a section tune");
  app.add_option("--set", overrides, "override a key: --set tune.trials=20")
      ->take_all()
      ->expected(1)
      ->allow_extra_args(false);
  app.add_option("--workers", workers,
                 "processes on this machine; other machines join by the same command, with tune.storage "
                 "in PostgreSQL and tune.output in a shared folder")
      ->check(CLI::Range(1, 1024));
  int64_t worker = -1;
  app.add_option("--worker", worker)->group("");  // of --workers'
  OptionTable keys = train::option_table(defaults);
  std::string help;
  for (const auto& r : keys.records())
    if (r.path.starts_with("tune."))
      help += fmt::format("  {:<16}  {} (default {}; {})\n", r.path, r.doc, r.value, r.expected);
  app.footer(
      "\nKeys of the config beside those of deepseek train:\n" + help +
      "\nA range is {low: 1e-5, high: 1e-2}; where low > 0 and high >= 100 low it is searched in the logarithm, unless "
      "log: false says otherwise. Choices are lists: [32, 64]; with ordered: true neighbours are alike."
      "\nRun again, the search goes on where it stood.\nExample: deepseek tune examples/tune.yaml --workers 2");
  CLI::App* list = app.add_subcommand("list", "List the studies of a database");
  list->add_option("place", place, "a folder of deepseek tune, a database's file or its URL")->required();
  list->footer("Example: deepseek tune list runs/tune");
  std::string name, output, pictures;
  CLI::App* report =
      app.add_subcommand("report", "Write a page on a study: history, importances, slices, contour, all trials");
  report->add_option("place", place, "a folder of deepseek tune, a database's file or its URL")->required();
  report->add_option("--name", name, "which study, where there are several");
  report->add_option("-o,--output", output, "the page; by default report.html, in the folder where the place is one");
  report->add_option("--png", pictures, "also each chart as PNG, in this folder");
  report->footer("Example: deepseek tune report runs/tune --png charts");
  app.require_subcommand(0, 1);
  if (const auto code = parse_arguments(app, argc, argv)) return *code;
  if (*list) return list_command(place);
  if (*report) return report_command(place, name, output, pictures);
  if (config.empty()) {
    print_err("error: expected a config or a subcommand; see deepseek tune --help\n");
    return 2;
  }
  return tune_command(config, overrides, workers, worker);
}

}  // namespace

int main(int argc, char** argv) {
  return run_main([&] { return run(argc, argv); });
}
