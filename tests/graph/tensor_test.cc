#include "graph/tensor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>

namespace deepseek::graph {
namespace {

// Memory that was given back is used again, but never where zeros are asked for.
TEST(Tensor, ZerosAreZerosAfterOthersWereThere) {
  const Dims dims{3, 1 << 20};
  for (int round = 0; round < 3; ++round) {
    Tensor used(DType::kF32, dims);
    std::memset(used.data(), 0xff, used.num_bytes());
    used = Tensor();
    const Tensor zeros = Tensor::zeros(DType::kF32, dims);
    for (int64_t i = 0; i < zeros.num_elements(); i += 1021) ASSERT_EQ(zeros.as<float>()[i], 0.0f);
  }
}

// However many sizes came before, one that comes again and again gets the memory of its last time.
TEST(Tensor, RecyclesWhatIsAskedForNow) {
  for (int64_t i = 0; i < 40; ++i) Tensor(DType::kU8, {(int64_t{5} << 20) + (i << 16)});
  const Dims now{int64_t{6} << 20};
  int recycled = 0;
  for (int round = 0; round < 4; ++round) {
    Tensor t(DType::kU8, now);
    recycled += t.as<uint8_t>()[12345] == 7;  // memory from the kernel is 0
    t.as<uint8_t>()[12345] = 7;
  }
  EXPECT_GE(recycled, 3);
}

TEST(Tensor, CopiesShareAndClonesDoNot) {
  Tensor a = Tensor::full(DType::kF32, {2, 3}, 1.5);
  const Tensor shared = a, own = a.clone();
  a.set(0, 7);
  EXPECT_EQ(shared.at(0), 7);
  EXPECT_EQ(own.at(0), 1.5);
  EXPECT_EQ(a, shared);
  EXPECT_FALSE(a == own);  // identity, not equal numbers
  EXPECT_EQ(reinterpret_cast<uintptr_t>(own.data()) % 64, 0u);
}

TEST(Tensor, ZerosOfAnySizeAreZeroAndAligned) {
  for (const int64_t n : {1, 1000, 300000, 3000001}) {
    const Tensor t = Tensor::zeros(DType::kF32, {n});
    EXPECT_EQ(reinterpret_cast<uintptr_t>(t.data()) % 64, 0u);
    for (int64_t i = 0; i < n; ++i) ASSERT_EQ(t.as<float>()[i], 0) << i << " of " << n;
    for (int64_t i = 0; i < n; ++i) t.as<float>()[i] = 1;  // so that memory that comes back is not zero by chance
  }
}

TEST(Tensor, RowsAndReshapeAreViews) {
  Tensor a(DType::kI32, {3, 2});
  for (int64_t i = 0; i < 6; ++i) a.set(i, static_cast<double>(i));
  const Tensor rows = a.rows(1, 3);
  EXPECT_EQ(rows.dims(), (Dims{2, 2}));
  EXPECT_EQ(rows.at(0), 2);
  const Tensor flat = a.reshaped({6});
  a.set(5, -1);
  EXPECT_EQ(rows.at(3), -1);
  EXPECT_EQ(flat.at(5), -1);
  EXPECT_EQ(Tensor(DType::kF32, {0, 4}).rows(0, 0).num_elements(), 0);
}

TEST(Tensor, ABorrowedTensorKeepsItsOwner) {
  auto owner = std::make_shared<std::vector<float>>(std::vector<float>{1, 2});
  const std::weak_ptr<void> watch = owner;
  {
    Tensor t({DType::kF32, {2}}, owner->data(), owner);
    owner.reset();
    EXPECT_EQ(t.rows(1, 2).at(0), 2);
    EXPECT_FALSE(watch.expired());
  }
  EXPECT_TRUE(watch.expired());
}

TEST(Tensor, CastRounds) {
  Tensor a = Tensor::full(DType::kF64, {1}, 1.0 + 1e-9);
  EXPECT_EQ(a.cast(DType::kF32).at(0), 1.0);
  EXPECT_EQ(Tensor::full(DType::kF32, {1}, 1.00390625).cast(DType::kBF16).at(0), 1.0);  // half way, to even
  EXPECT_EQ(Tensor::zeros(DType::kBool, {2}).cast(DType::kF32).at(1), 0);
}

TEST(Tensor, IntegersOf64BitsAreExact) {
  const int64_t values[] = {(int64_t{1} << 53) + 1, INT64_MAX, INT64_MIN, -7};
  const Tensor t = Tensor::from<int64_t>(DType::kI64, {4}, values);
  EXPECT_TRUE(std::equal(values, values + 4, t.as<int64_t>()));
}

TEST(Tensor, ImpossibleSizesAreNoMemory) {
  EXPECT_THROW(Tensor(DType::kF32, {int64_t{1} << 31, int64_t{1} << 31}), std::bad_alloc);
  EXPECT_THROW(Tensor::zeros(DType::kF64, {int64_t{1} << 40, int64_t{1} << 40}),
               std::bad_alloc);  // the product overflows
  EXPECT_THROW(Tensor(DType::kF32, {-4}), std::bad_alloc);
}

}  // namespace
}  // namespace deepseek::graph
