// Every instruction set gives the bits that the baseline gives; values themselves are checked against ml_dtypes and
// NumPy by tests/unit/test_reduce.py.
#include "pycomm/reduce.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "reduce/kernels.h"

namespace pycomm {
namespace {

using reduce::kDTypes;
using reduce::Kernels;
using reduce::kOps;

constexpr std::size_t kCounts[] = {0, 1, 7, 63, 512, 1500};

// Random patterns. Arithmetic on two NaNs may keep either payload, so `finite` clears an exponent bit.
std::vector<std::uint8_t> random_bytes(std::size_t n, DType dtype, bool finite, unsigned seed) {
  std::mt19937 rng(seed);
  std::vector<std::uint8_t> bytes(n);
  for (auto& b : bytes) b = static_cast<std::uint8_t>(rng());
  if (finite)
    for (std::size_t i = itemsize(dtype) - 1; i < n; i += itemsize(dtype)) bytes[i] &= 0xbf;
  return bytes;
}

bool is_float(DType dtype) { return dtype <= DType::float8_e5m2; }
bool is_arithmetic(std::size_t op) {
  const auto o = static_cast<ReduceOp>(op);
  return o == ReduceOp::sum || o == ReduceOp::prod || o == ReduceOp::avg || o == ReduceOp::premul_sum;
}

TEST(Reduce, EveryInstructionSetAgrees) {
  const Kernels& base = *reduce::baseline_kernels();
  for (const Kernels* kernels : reduce::usable_kernels()) {
    for (std::size_t d = 0; d < kDTypes; ++d) {
      const auto dtype = static_cast<DType>(d);
      for (std::size_t op = 0; op < kOps; ++op) {
        ASSERT_EQ(kernels->reduce[d][op] == nullptr, base.reduce[d][op] == nullptr);
        ASSERT_EQ(kernels->many[d][op] == nullptr, base.many[d][op] == nullptr);
        if (base.reduce[d][op] == nullptr) continue;
        for (const std::size_t count : kCounts) {
          const std::size_t n = count * itemsize(dtype);
          const bool finite = is_float(dtype) && is_arithmetic(op);
          const auto a = random_bytes(n, dtype, finite, 1);
          const auto b = random_bytes(n, dtype, finite, 2);
          std::vector<std::uint8_t> want(n);
          std::vector<std::uint8_t> got = a;  // in place on the left
          base.reduce[d][op](want.data(), a.data(), b.data(), count);
          kernels->reduce[d][op](got.data(), got.data(), b.data(), count);
          EXPECT_EQ(want, got) << kernels->isa << " dtype " << d << " op " << op << " count " << count;
        }
      }
    }
  }
}

TEST(Reduce, ManyInputsAgreeInPlaceOnAnyOfThem) {
  const Kernels& base = *reduce::baseline_kernels();
  const std::size_t count = 700;
  for (const Kernels* kernels : reduce::usable_kernels()) {
    for (std::size_t d = 0; d < kDTypes; ++d) {
      const auto dtype = static_cast<DType>(d);
      for (std::size_t op = 0; op < kOps; ++op) {
        if (base.many[d][op] == nullptr) continue;
        for (int n = 1; n <= 8; ++n) {
          std::vector<std::vector<std::uint8_t>> inputs;
          std::vector<const void*> pointers;
          for (int k = 0; k < n; ++k)
            inputs.push_back(random_bytes(count * itemsize(dtype), dtype, is_float(dtype), static_cast<unsigned>(k)));
          for (const auto& x : inputs) pointers.push_back(x.data());
          std::vector<std::uint8_t> want(inputs[0].size());
          base.many[d][op](want.data(), pointers.data(), n, count, n);
          auto& out = inputs[static_cast<std::size_t>(n - 1)];
          kernels->many[d][op](out.data(), pointers.data(), n, count, n);
          EXPECT_EQ(want, out) << kernels->isa << " dtype " << d << " op " << op << " of " << n;
        }
      }
    }
  }
}

TEST(Reduce, ScalingAndDividingAgree) {
  const Kernels& base = *reduce::baseline_kernels();
  const std::size_t count = 777;
  for (const Kernels* kernels : reduce::usable_kernels()) {
    for (std::size_t d = 0; d < kDTypes; ++d) {
      const auto dtype = static_cast<DType>(d);
      const auto a = random_bytes(count * itemsize(dtype), dtype, is_float(dtype), 9);
      std::vector<std::uint8_t> want(a.size());
      std::vector<std::uint8_t> got = a;
      base.scale[d](want.data(), a.data(), count, -1.75);
      kernels->scale[d](got.data(), got.data(), count, -1.75);
      EXPECT_EQ(want, got) << kernels->isa << " scale, dtype " << d;
      got = a;
      base.divide[d](want.data(), a.data(), count, 3);
      kernels->divide[d](got.data(), got.data(), count, 3);
      EXPECT_EQ(want, got) << kernels->isa << " divide, dtype " << d;
    }
  }
}

TEST(Reduce, PublicFunctionsUseTheBestKernels) {
  EXPECT_STREQ(reduce_isa(), reduce::usable_kernels().front()->isa);
  const float a[3] = {1, 2, 3};
  const float b[3] = {10, 20, 30};
  float out[3];
  reduce_fn(DType::float32, ReduceOp::sum)(out, a, b, 3);
  EXPECT_EQ(out[2], 33.0F);
  const void* both[] = {a, b};
  reduce_many_fn(DType::float32, ReduceOp::avg)(out, both, 2, 3, 2);
  EXPECT_EQ(out[0], 5.5F);
  scale(DType::float32, out, a, 3, 2.0);
  EXPECT_EQ(out[1], 4.0F);
  divide(DType::float32, out, a, 3, 2);
  EXPECT_EQ(out[0], 0.5F);
  EXPECT_EQ(reduce_fn(DType::float32, ReduceOp::bxor), nullptr);
  EXPECT_EQ(reduce_many_fn(DType::boolean, ReduceOp::avg), nullptr);
}

TEST(Reduce, CopiesAnySize) {
  for (const std::size_t n : {std::size_t{0}, std::size_t{1}, std::size_t{4097}, std::size_t{3} << 20}) {
    const auto src = random_bytes(n, DType::uint8, false, 3);
    std::vector<std::uint8_t> dst(n);
    copy_bytes(dst.data(), src.data(), n);
    EXPECT_EQ(src, dst);
  }
}

}  // namespace
}  // namespace pycomm
