// What the op records say, for people: a list, one op's page, a table of which implementation of a backend runs each
// op in each element type. The latter is asked of the backend, by compiling the samples; nothing is kept by hand.
// `deepseek ops` prints these, `make docs` writes the table. Test: tests/explain/op_docs_test.cc
#pragma once

#include <string>
#include <vector>

#include "graph/op_def.h"
#include "runtime/backend.h"

namespace deepseek::explain {

using runtime::Backend;

// One line per op: its name and what it does.
std::string op_list(const graph::OpRegistry& registry);

// Operands, attributes, gradient, and each sample with what runs it on `backend`. An unknown name is an error that
// tells the nearest.
Result<std::string> op_page(const graph::OpRegistry& registry, std::string_view name, const Backend& backend);

// Markdown: a table of ops by element types, then a section per op. Empty `names` means all ops.
Result<std::string> op_table(const graph::OpRegistry& registry, const Backend& backend,
                             const std::vector<std::string>& names = {});

// The implementations that run one sample with its numbers in `dtype`: "onednn"; "parts: elementwise,
// native" where the op is taken apart; "none needed" for a new view of the same bytes; "refused" where no
// implementation takes it; empty where the op's inference does not take the dtype.
Result<std::string> sample_runs_on(const graph::OpDef& def, const graph::Sample& sample, DType dtype,
                                   const Backend& backend);

}  // namespace deepseek::explain
