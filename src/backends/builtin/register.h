// The built-in backends by name (runtime/backend.h): what programs, the Python extension and tests call once at start.
// Nothing else includes a backend. Test: tests/conformance
#pragma once

namespace deepseek::backends::builtin {

// cpu and null. May be called again, from any thread; registers once.
void register_backends();

}  // namespace deepseek::backends::builtin
