// Predictions as text for people: a line for each sample. Test: tests/python/test_predict.py
#pragma once

#include <string>

#include "data/table_writer.h"

namespace deepseek::predict {

// "shirt.png: Shirt (97.1 %)", "12: 3.25", "12: kind red (80.0 %), value 2.5": probabilities of all classes are left out.
std::string part_text(const data::TablePart& part);
// To standard output.
Status print_part(const data::TablePart& part);

}  // namespace deepseek::predict
