// Copying to memory that will not be read again soon.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace pycomm::flat {

// memcpy whose stores bypass the caches, so that the destination is not read in before it is overwritten. Weakly
// ordered: the writing thread itself sees it at once, others after that thread's next full_fence().
inline void stream_copy(std::byte* dst, const std::byte* src, std::size_t nbytes) noexcept {
#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)  // TSan cannot follow these stores
  if (nbytes >= 256) {
    const std::size_t head = (64 - reinterpret_cast<std::uintptr_t>(dst) % 64) % 64;
    std::memcpy(dst, src, head);
    dst += head, src += head, nbytes -= head;
    for (; nbytes >= 64; dst += 64, src += 64, nbytes -= 64) {
      const auto* from = reinterpret_cast<const __m128i*>(src);
      auto* to = reinterpret_cast<__m128i*>(dst);
      const __m128i a = _mm_loadu_si128(from);
      const __m128i b = _mm_loadu_si128(from + 1);
      const __m128i c = _mm_loadu_si128(from + 2);
      const __m128i d = _mm_loadu_si128(from + 3);
      _mm_stream_si128(to, a);
      _mm_stream_si128(to + 1, b);
      _mm_stream_si128(to + 2, c);
      _mm_stream_si128(to + 3, d);
    }
  }
#endif
  std::memcpy(dst, src, nbytes);
}

}  // namespace pycomm::flat
