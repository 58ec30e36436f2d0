// The data source "table": a raw file of rows becomes the parts that a model learns from, by a pipeline that is fitted on
// the training part alone; new files become inputs of the trained model by that same pipeline, bit for bit.
// Test: tests/tables/table_source_test.cc, tests/python/test_table_source.py
#pragma once

#include "data/sources.h"

namespace deepseek::tables {

// One input field "x", f32 [features], and a target field for each target column: "y" where there is one, else named as
// the column ('/', '<' and '>' become '_'). What source_spec() says is in table_spec.h.
data::Source table_source();

}  // namespace deepseek::tables

// What data::find_source() calls when it has loaded this library.
extern "C" void deepseek_register_sources();
