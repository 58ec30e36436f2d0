// Transforms of natural language to numbers.
#include "features/primitives.h"
#include "tables/text.h"

namespace deepseek::features {

void add_texts(std::vector<Primitive>& list) {
  for (const tables::TextStatistic& s : tables::text_statistics())
    list.push_back({.name = s.name,
                    .doc = s.doc,
                    .inputs = {{{Logical::kText}}},
                    .output = s.whole ? kCount : kDoubleNumber,
                    .missing = s.missing,
                    .measure = s.measure});
}

}  // namespace deepseek::features
