// A stream that is read again and again, parsed once: what the first reading makes of it is kept in a file, which later
// ones read many times as fast as text. Test: tests/python/test_stream.py
#pragma once

#include <memory>
#include <string>

#include "tables/source.h"

namespace deepseek::tables {

// `open` with its batches kept in a nameless file (Arrow IPC) on the disk of `folder`. A reading that is broken off
// keeps nothing.
OpenStream spilled(OpenStream open, const std::string& folder);

}  // namespace deepseek::tables
