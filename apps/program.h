// What the programs of the command line share: how they parse, what they tell, and how they end.
// Exit codes: 0 done, 1 failed, 2 wrong usage or config, 130 interrupted.
#pragma once

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <optional>
#include <sstream>
#include <string>

#include "base/console.h"
#include "base/progress.h"
#include "base/status.h"

namespace deepseek {

inline int failed(const Status& status) {
  print_err("error: {}\n", status.to_string());
  if (status.code() == ErrorCode::kInterrupted) return 130;
  return status.code() == ErrorCode::kInvalidArgument ? 2 : 1;
}

// Parses, and gives the exit code where that is all there was to do: help, or a mistake.
inline std::optional<int> parse_arguments(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::ParseError& e) {
    std::ostringstream out, err;
    const int code = app.exit(e, out, err) == 0 ? 0 : 2;
    console_out(out.str());
    console_err(err.str());
    return code;
  }
}

inline ProgressBar progress_bar(std::string unit) {
  return ProgressBar(std::move(unit), isatty(STDERR_FILENO) != 0, [](const std::string& text) { console_err(text); });
}

}  // namespace deepseek
