#include "base/version.h"

namespace deepseek {

std::string version() { return DEEPSEEK_VERSION; }

}  // namespace deepseek
