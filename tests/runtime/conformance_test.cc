// The conformance suite can fail: each check is run over backends that are the null backend but for one fault.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "runtime/backend.h"
#include "tests/conformance/suite.h"

namespace deepseek {
namespace {

using graph::Tensor;
using runtime::Backend;
using runtime::Buffer;
using runtime::StateBuffer;

enum class Fault {
  kNone,
  kUploadsZeros,
  kCountsNothing,
  kWrongResult,
  kForgetsState,
  kKeepsDonated,
  kIgnoresLimit,
  kNoProfile,
  kConstantsShared
};

class FaultyProgram : public runtime::Program {
 public:
  FaultyProgram(std::shared_ptr<const runtime::Program> right, const Backend& backend, Fault fault)
      : right_(std::move(right)), backend_(backend), fault_(fault) {}
  const graph::Graph& graph() const override { return right_->graph(); }
  const Backend& backend() const override { return backend_; }
  size_t arena_bytes() const override { return right_->arena_bytes(); }
  size_t memory_bytes() const override { return right_->memory_bytes(); }
  std::vector<runtime::NodeReport> report() const override { return right_->report(); }
  Result<std::vector<Buffer>> execute(std::span<const Buffer> data, std::span<StateBuffer* const> state,
                                      runtime::Profile* profile) const override;

 private:
  std::shared_ptr<const runtime::Program> right_;
  const Backend& backend_;
  Fault fault_;
};

class FaultyBackend : public Backend {
 public:
  explicit FaultyBackend(Fault fault) : right_(*runtime::open_backend("null")), fault_(fault) {}
  std::string name() const override { return "faulty"; }
  std::map<std::string, std::string> properties() const override { return {}; }
  Buffer own(const Buffer& b) const { return Buffer(b.type(), this, b.owner(), b.data()); }
  Buffer theirs(const Buffer& b) const { return Buffer(b.type(), right_.get(), b.owner(), b.data()); }
  Result<Buffer> make_buffer(const graph::TensorType& type) const override {
    DS_ASSIGN(const Buffer b, right_->make_buffer(type));
    return own(b);
  }
  Result<Buffer> upload(const Tensor& value) const override {
    DS_ASSIGN(const Buffer b, right_->upload(value));
    if (fault_ == Fault::kUploadsZeros && value.num_bytes() > 0) std::memset(b.data(), 0, value.num_bytes());
    return own(b);
  }
  Result<Tensor> download(const Buffer& buffer) const override {
    if (!buffer.available()) return invalid("download: the buffer is undefined, or was donated to a run");
    if (buffer.backend() != this) return invalid("download: the buffer belongs to another device");
    return right_->download(theirs(buffer));
  }
  bool host_memory() const override { return false; }
  Result<std::shared_ptr<const runtime::Program>> compile(const graph::Graph& graph,
                                                          const runtime::CompileOptions& options) const override {
    runtime::CompileOptions changed = options;
    if (fault_ == Fault::kIgnoresLimit) changed.memory_limit = 0;
    if (fault_ == Fault::kConstantsShared) changed.constants.clear();
    DS_ASSIGN(auto program, right_->compile(graph, changed));
    return std::shared_ptr<const runtime::Program>(std::make_shared<FaultyProgram>(std::move(program), *this, fault_));
  }
  size_t memory_bytes() const override { return right_->memory_bytes(); }
  runtime::MemoryUse memory_use() const override {
    return fault_ == Fault::kCountsNothing ? runtime::MemoryUse() : right_->memory_use();
  }
  void set_memory_limit(size_t bytes) const override {
    if (fault_ != Fault::kIgnoresLimit) right_->set_memory_limit(bytes);
  }
  bool has_fast(DType) const override { return false; }
  runtime::Peak measure_peak() const override { return right_->measure_peak(); }

 private:
  runtime::BackendPtr right_;
  Fault fault_;
};

Result<std::vector<Buffer>> FaultyProgram::execute(std::span<const Buffer> data, std::span<StateBuffer* const> state,
                                                   runtime::Profile* profile) const {
  const auto& of = static_cast<const FaultyBackend&>(backend_);
  DS_TRY(runtime::check_operands(graph(), backend_, data, state));
  std::vector<Buffer> inputs;
  for (const Buffer& b : data) {
    if (!b.available()) return invalid("an input is missing");
    inputs.push_back(of.theirs(b));
  }
  std::vector<StateBuffer> places;
  for (StateBuffer* s : state) {
    if (!s->value.available()) return invalid("a state is missing");
    places.push_back({of.theirs(s->value)});
    if (fault_ == Fault::kForgetsState) {
      DS_ASSIGN(const Tensor copy, of.download(s->value));
      DS_ASSIGN(const Buffer other, of.upload(copy));
      places.back() = {of.theirs(other)};
    }
  }
  std::vector<StateBuffer*> slots;
  for (StateBuffer& s : places) slots.push_back(&s);
  DS_ASSIGN(const std::vector<Buffer> results,
            right_->execute(inputs, slots, fault_ == Fault::kNoProfile ? nullptr : profile));
  if (fault_ != Fault::kKeepsDonated)
    for (const Buffer& b : data)
      if (b.donated()) b.take();
  std::vector<Buffer> outputs;
  for (const Buffer& b : results) {
    if (fault_ == Fault::kWrongResult && b.type().dtype == DType::kF32 && b.type().num_elements() > 0)
      store_from_double(DType::kF32, b.data(), 0, 1 + load_as_double(DType::kF32, b.data(), 0));
    outputs.push_back(of.own(b));
  }
  return outputs;
}

// The checks that a backend with this fault fails, but for those of all ops, which take long.
std::vector<std::string> failed(Fault fault) {
  const FaultyBackend backend(fault);
  std::vector<std::string> names;
  for (const conformance::Check& check : conformance::checks())
    if (check.name != "Forward" && check.name != "Gradient" && !check.run(backend).empty()) names.push_back(check.name);
  return names;
}

bool fails(Fault fault, const std::string& name) {
  const std::vector<std::string> names = failed(fault);
  return std::find(names.begin(), names.end(), name) != names.end();
}

TEST(Conformance, PassesWhatHasNoFault) { EXPECT_EQ(failed(Fault::kNone), std::vector<std::string>()); }

TEST(Conformance, FindsEachFault) {
  EXPECT_TRUE(fails(Fault::kUploadsZeros, "Buffers"));
  EXPECT_TRUE(fails(Fault::kCountsNothing, "Buffers"));
  EXPECT_TRUE(fails(Fault::kWrongResult, "State"));
  EXPECT_TRUE(fails(Fault::kWrongResult, "RandomCounter"));
  EXPECT_TRUE(fails(Fault::kWrongResult, "Constants"));
  EXPECT_TRUE(fails(Fault::kForgetsState, "State"));
  EXPECT_TRUE(fails(Fault::kForgetsState, "RandomCounter"));
  EXPECT_TRUE(fails(Fault::kKeepsDonated, "Donation"));
  EXPECT_TRUE(fails(Fault::kIgnoresLimit, "MemoryLimit"));
  EXPECT_TRUE(fails(Fault::kNoProfile, "Profile"));
  EXPECT_TRUE(fails(Fault::kConstantsShared, "Constants"));
  const FaultyBackend wrong(Fault::kWrongResult);
  EXPECT_FALSE(conformance::check_forward(wrong, "exp").empty());
  EXPECT_FALSE(conformance::check_gradient(wrong, "exp").empty());
  EXPECT_TRUE(conformance::check_forward(FaultyBackend(Fault::kNone), "exp").empty());
}

}  // namespace
}  // namespace deepseek
