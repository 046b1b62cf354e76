// Kernels for x86-64 with AVX-512 (F, BW, DQ and VL).
#include <cstdint>

#include "reduce/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,f16c")
#endif

namespace pycomm::reduce {
namespace avx512 {
namespace {
#define PYCOMM_F16_LANES 16
#include "reduce/loops.h"  // NOLINT: the loops, compiled for this file's instruction set
}  // namespace
}  // namespace avx512
}  // namespace pycomm::reduce

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__

namespace pycomm::reduce {

const Kernels* avx512_kernels() noexcept {
#if defined(__x86_64__)
  static const avx512::Table kTable("avx512");
  return &kTable.kernels;
#else
  return nullptr;
#endif
}

}  // namespace pycomm::reduce
