// A stream that is read again and again, parsed once: what the first reading makes of it is kept in a file, which later
// ones read many times as fast as text. Test: tests/python/test_stream.py
#pragma once

#include <memory>
#include <string>

#include "tables/source.h"

namespace deepseek::tables {

// `open` with its batches kept at `path` (Arrow IPC), which is removed in the end. A reading that is broken off keeps
// nothing.
OpenStream spilled(OpenStream open, const std::string& path);

}  // namespace deepseek::tables
