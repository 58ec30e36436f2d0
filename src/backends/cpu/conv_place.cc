#include "backends/cpu/conv_place.h"

#include <algorithm>

namespace deepseek::backends::cpu {

Result<ConvPlace> place_of(const Anchored& a, int64_t block, Purpose purpose) {
  ConvPlace place{{}, a.input_of(0), a.input_of(1), a.output_of(0)};
  if (place.x < 0 || place.weights < 0) return refuse("an operand of the convolution is computed in the loop");
  if (a.body.nodes().size() == 1) return place;
  const bool in_place = place.result < 0;
  std::vector<int> outputs;
  for (int o = 0; o < static_cast<int>(a.body.outputs().size()); ++o)
    if (o != place.result) outputs.push_back(o);
  if (in_place) place.result = outputs[0];
  graph::Builder builder(a.body.registry());
  Extractor extractor(a, builder, [&](int32_t) {
    return extractor.add_input(a.body.type(a.node().output()), Loop::kOutputs + place.result);
  });
  for (int o : outputs)
    builder.output(std::to_string(o), extractor.value(a.body.outputs()[static_cast<size_t>(o)].value));
  DS_ASSIGN(place.after, Loop::make(builder, extractor.sources(), outputs, block, purpose));
  const std::vector<int>& sources = place.after->sources;
  const auto own = std::find(sources.begin(), sources.end(), Loop::kOutputs + place.result);
  if (in_place && (own == sources.end() || !place.after->program.in_place(0, static_cast<int>(own - sources.begin()))))
    return refuse("the loop can't work in place");
  return place;
}

}  // namespace deepseek::backends::cpu
