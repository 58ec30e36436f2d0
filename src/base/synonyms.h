// What other frameworks call what has another name here, for messages. Test: tests/base/strings_test.cc
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace deepseek {

// The known names that `name` means elsewhere: {"learning_rate"} of "lr", {"beta1", "beta2"} of "betas"; none where it
// means nothing that is known.
std::vector<std::string> synonyms(std::string_view name, const std::vector<std::string>& known);

// What was meant by `name`: what it is called here, else the nearest of the candidates; or none.
std::vector<std::string> meant(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace deepseek
