// What the programs of the command line share: how they parse, what they tell, and how they end.
// Exit codes: 0 done, 1 failed, 2 wrong usage or config, 130 interrupted.
#pragma once

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <optional>
#include <sstream>
#include <string>

#include "base/console.h"
#include "base/progress.h"
#include "base/status.h"
#include "base/strings.h"

namespace deepseek {

inline int failed(const Status& status) {
  print_err("error: {}\n", status.to_string());
  if (status.code() == ErrorCode::kInterrupted) return 130;
  return status.code() == ErrorCode::kInvalidArgument ? 2 : 1;
}

// "; did you mean '--set'?" where an argument is no option of the command that was given.
inline std::string option_hint(const CLI::App& app, int argc, char** argv) {
  const CLI::App* command = &app;
  while (!command->get_subcommands().empty()) command = command->get_subcommands().front();
  std::vector<std::string> known;
  for (const CLI::Option* option : command->get_options())
    for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
  for (int i = 1; i < argc; ++i) {
    const std::string given = std::string(argv[i]).substr(0, std::string_view(argv[i]).find('='));
    if (given.starts_with("--") && std::find(known.begin(), known.end(), given) == known.end())
      if (const std::string hint = did_you_mean(given, known); !hint.empty()) return given + hint;
  }
  return {};
}

// What argv[1] is, where it is to be a command and is none.
inline std::string unknown_command(const CLI::App& app, int argc, char** argv) {
  if (app.get_require_subcommand_min() == 0 || argc < 2 || argv[1][0] == '-' || argv[1][0] == '\0') return {};
  std::vector<std::string> known;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    known.push_back(command->get_name());
  if (known.empty() || std::find(known.begin(), known.end(), argv[1]) != known.end()) return {};
  std::string hint = did_you_mean(argv[1], known);
  std::error_code error;
  const std::filesystem::path path = argv[1];
  if (hint.empty() && std::filesystem::exists(path, error))
    hint = (path.extension() == ".yaml" || path.extension() == ".yml") &&
                   std::find(known.begin(), known.end(), "train") != known.end()
               ? fmt::format("; to train by it: {} train {}", app.get_name(), argv[1])
               : "; a file is given after the command";
  return fmt::format("unknown command '{}'{} There are: {}", argv[1],
                     hint.empty()          ? "."
                     : hint.ends_with('?') ? hint
                                           : hint + ".",
                     join(known, ", "));
}

// Parses, and gives the exit code where that is all there was to do: help, or a mistake.
inline std::optional<int> parse_arguments(CLI::App& app, int argc, char** argv) {
  if (const std::string unknown = unknown_command(app, argc, argv); !unknown.empty()) {
    print_err("error: {}\n", unknown);
    return 2;
  }
  try {
    app.parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::ParseError& e) {
    std::ostringstream out, err;
    const int code = app.exit(e, out, err) == 0 ? 0 : 2;
    console_out(out.str());
    console_err(err.str());
    if (code != 0)
      if (const std::string hint = option_hint(app, argc, argv); !hint.empty()) print_err("{}\n", hint);
    return code;
  }
}

inline ProgressBar progress_bar(std::string unit) {
  return ProgressBar(std::move(unit), isatty(STDERR_FILENO) != 0, [](const std::string& text) { console_err(text); });
}

}  // namespace deepseek
