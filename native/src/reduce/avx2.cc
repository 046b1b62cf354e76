// Kernels for x86-64 with AVX2 and F16C.
#include <cstdint>

#include "reduce/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,f16c")
#endif

namespace pycomm::reduce {
namespace avx2 {
namespace {
#define PYCOMM_F16_LANES 8
#include "reduce/loops.h"  // NOLINT: the loops, compiled for this file's instruction set
}  // namespace
}  // namespace avx2
}  // namespace pycomm::reduce

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__

namespace pycomm::reduce {

const Kernels* avx2_kernels() noexcept {
#if defined(__x86_64__)
  static const avx2::Table kTable("avx2");
  return &kTable.kernels;
#else
  return nullptr;
#endif
}

}  // namespace pycomm::reduce
