// ctc_loss on f32: samples side by side, each in double on the few classes that its target names.
#include "ops/ctc.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/cpu/kernel.h"
#include "base/threads.h"

namespace deepseek::backends::cpu {

namespace {

struct Problem {
  int64_t steps, batch, classes, width, blank;
  DType target_dtype, input_length_dtype, target_length_dtype;
  bool has_input_lengths, has_target_lengths, zero_infinity;
};
struct CtcSample {
  int64_t steps;
  std::vector<int64_t> classes;   // those in the target, the blank first
  std::vector<int64_t> extended;  // the target with blanks around each label, as positions in `classes`
};

Status read_length(const char* what, DType dtype, const void* lengths, int64_t n, int64_t limit, int64_t& length) {
  length = static_cast<int64_t>(load_as_double(dtype, lengths, n));
  if (length < 0 || length > limit)
    return invalid("{}: expected a length in [0, {}] for sample {}, got {}", what, limit, n, length);
  return {};
}

Result<CtcSample> read_sample(const Problem& p, const KernelArgs& args, int64_t n) {
  CtcSample s{p.steps, {p.blank}, {0}};
  int64_t length = p.width;
  if (p.has_input_lengths) DS_TRY(read_length("input_lengths", p.input_length_dtype, args.in[2], n, p.steps, s.steps));
  if (p.has_target_lengths)
    DS_TRY(read_length("target_lengths", p.target_length_dtype, args.in[3], n, p.width, length));
  for (int64_t i = 0; i < length; ++i) {
    const auto label = static_cast<int64_t>(load_as_double(p.target_dtype, args.in[1], n * p.width + i));
    if (label < 0 || label >= p.classes || label == p.blank)
      return invalid("target {} of sample {}: expected a class in [0, {}) other than the blank {}, got {}", i, n,
                     p.classes, p.blank, label);
    const auto known = std::find(s.classes.begin(), s.classes.end(), label);
    s.extended.insert(s.extended.end(), {known - s.classes.begin(), 0});
    if (known == s.classes.end()) s.classes.push_back(label);
  }
  return s;
}

void run_sample(const Problem& p, const CtcSample& s, int64_t n, const float* x, float* loss, float* grad) {
  const auto named = static_cast<int64_t>(s.classes.size());
  std::vector<double> log_p(static_cast<size_t>(s.steps * named)), d(log_p.size());
  for (int64_t t = 0; t < s.steps; ++t)
    for (int64_t k = 0; k < named; ++k) log_p[t * named + k] = x[(t * p.batch + n) * p.classes + s.classes[k]];
  const double value = ops::ctc_sample(log_p.data(), named, s.steps, s.extended, 0, d.data());
  if (loss != nullptr) loss[n] = std::isinf(value) && p.zero_infinity ? 0.0f : static_cast<float>(value);
  if (grad == nullptr) return;
  for (int64_t t = 0; t < p.steps; ++t) {
    float* row = grad + (t * p.batch + n) * p.classes;
    std::fill_n(row, p.classes, 0.0f);
    for (int64_t k = 0; t < s.steps && k < named; ++k) row[s.classes[k]] = static_cast<float>(d[t * named + k]);
  }
}

}  // namespace

Status takes_ctc(const NodeInfo& node) {
  const DType dtype = node.context.in(0).dtype;
  return dtype == DType::kF32 ? Status() : refuse(fmt::format("dtype {} is not supported", to_string(dtype)));
}

KernelOrError make_ctc(const NodeInfo& node) {
  const graph::OpContext& c = node.context;
  Problem p{.steps = c.in(0).dims[0],
            .batch = c.in(0).dims[1],
            .classes = c.in(0).dims[2],
            .width = c.in(1).dims[1],
            .blank = c.integer("blank"),
            .target_dtype = c.in(1).dtype,
            .input_length_dtype = DType::kI64,
            .target_length_dtype = DType::kI64,
            .has_input_lengths = c.num_inputs() > 2,
            .has_target_lengths = c.num_inputs() > 3,
            .zero_infinity = c.flag("zero_infinity")};
  if (p.has_input_lengths) p.input_length_dtype = c.in(2).dtype;
  if (p.has_target_lengths) p.target_length_dtype = c.in(3).dtype;
  return make_kernel([p](const KernelArgs& args) -> Status {
    std::vector<CtcSample> samples;
    for (int64_t n = 0; n < p.batch; ++n) {
      DS_ASSIGN(CtcSample s, read_sample(p, args, n));
      samples.push_back(std::move(s));
    }
    parallel_for(p.batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n)
        run_sample(p, samples[n], n, static_cast<const float*>(args.in[0]), static_cast<float*>(args.out[0]),
                   static_cast<float*>(args.out[1]));
    });
    return {};
  });
}

}  // namespace deepseek::backends::cpu
