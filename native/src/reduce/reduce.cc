// Picks the kernels for the CPU at hand, once, and forwards.
#include "pycomm/reduce.h"

#include <array>
#include <cstring>

#include "reduce/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace pycomm {
namespace reduce {
namespace {

#if defined(__x86_64__)
// Asked of the CPU itself: older Clangs do not know the name. That the system saves the registers follows from AVX2.
bool has_f16c() noexcept {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

struct Usable {
  std::array<const Kernels*, 3> list{};
  std::size_t count = 0;
  Usable() noexcept {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
      add(avx512_kernels());
    if (__builtin_cpu_supports("avx2") && has_f16c()) add(avx2_kernels());
#endif
    add(baseline_kernels());
  }
  void add(const Kernels* kernels) noexcept {
    if (kernels != nullptr) list[count++] = kernels;
  }
};

const Kernels& best() noexcept {
  static const Kernels& kernels = *usable_kernels().front();
  return kernels;
}

}  // namespace

std::span<const Kernels* const> usable_kernels() noexcept {
  static const Usable kUsable;
  return {kUsable.list.data(), kUsable.count};
}

}  // namespace reduce

ReduceFn reduce_fn(DType dtype, ReduceOp op) noexcept {
  return reduce::best().reduce[static_cast<std::size_t>(dtype)][static_cast<std::size_t>(op)];
}

ReduceManyFn reduce_many_fn(DType dtype, ReduceOp op) noexcept {
  return reduce::best().many[static_cast<std::size_t>(dtype)][static_cast<std::size_t>(op)];
}

void scale(DType dtype, void* out, const void* a, std::size_t count, double factor) noexcept {
  reduce::best().scale[static_cast<std::size_t>(dtype)](out, a, count, factor);
}

void divide(DType dtype, void* out, const void* a, std::size_t count, int divisor) noexcept {
  reduce::best().divide[static_cast<std::size_t>(dtype)](out, a, count, divisor);
}

// The C library's own choice of non-temporal stores beat every streaming loop tried, at 16 KiB and at 64 MiB.
void copy_bytes(void* dst, const void* src, std::size_t nbytes) noexcept {
  if (nbytes != 0 && dst != src) std::memcpy(dst, src, nbytes);
}

const char* reduce_isa() noexcept { return reduce::best().isa; }

}  // namespace pycomm
