// The loops behind the kernels. Included by one file per instruction set, inside its own namespace and after its target
// pragma: never include it anywhere else, and use nothing from the standard library in it that would be compiled to a
// shared symbol (the linker would keep one copy, for whichever instruction set it met first).
//
// The including file defines PYCOMM_F16_LANES (0, 8 or 16): float16 values that one hardware conversion handles.

// Loads and stores of any alignment and effective type; compilers turn them into single, vectorised moves.
template <typename U>
inline U load(const void* p, std::size_t i) noexcept {
  U u;
  __builtin_memcpy(&u, static_cast<const char*>(p) + i * sizeof(U), sizeof(U));
  return u;
}

template <typename U>
inline void store(void* p, std::size_t i, U u) noexcept {
  __builtin_memcpy(static_cast<char*>(p) + i * sizeof(U), &u, sizeof(U));
}

// `out` may equal an input, never overlap one partially: an iteration depends on no other.
#if defined(__clang__)
#define PYCOMM_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define PYCOMM_INDEPENDENT _Pragma("GCC ivdep")
#endif

// `yes` where the condition holds, else `no`, without a branch: compilers that must mind floating-point traps turn many
// a conditional expression into a jump, and then cannot vectorise the loop.
template <typename U>
inline U pick(bool condition, U yes, U no) noexcept {
  const U mask = static_cast<U>(U{0} - static_cast<U>(condition));
  return static_cast<U>((yes & mask) | (no & static_cast<U>(~mask)));
}

// ---- formats -------------------------------------------------------------------------------------------------------
// `Bits` holds an element. Float formats name the patterns of infinity-or-largest magnitude that is no NaN (kTop), of
// the canonical NaN and of one.

template <typename U>
struct Unsigned {
  using Bits = U;
  using Value = U;
};

template <typename S, typename U>
struct Signed {
  using Bits = U;
  using Value = S;
};

struct Float64 {
  using Bits = std::uint64_t;
  using Ordered = std::int64_t;
  using Value = double;
  static constexpr Bits kTop = 0x7ff0'0000'0000'0000, kNan = 0x7ff8'0000'0000'0000, kOne = 0x3ff0'0000'0000'0000;
  static double decode(Bits u) noexcept { return __builtin_bit_cast(double, u); }
  static Bits encode(double f) noexcept { return __builtin_bit_cast(Bits, f); }
};

struct Float32 {
  using Bits = std::uint32_t;
  using Ordered = std::int32_t;
  using Value = float;
  static constexpr Bits kTop = 0x7f80'0000, kNan = 0x7fc0'0000, kOne = 0x3f80'0000;
  static float decode(Bits u) noexcept { return __builtin_bit_cast(float, u); }
  static Bits encode(float f) noexcept { return __builtin_bit_cast(Bits, f); }
};

struct BFloat16 {
  using Bits = std::uint16_t;
  using Ordered = std::int16_t;
  using Value = float;
  static constexpr Bits kTop = 0x7f80, kNan = 0x7fc0, kOne = 0x3f80;
  static float decode(Bits u) noexcept { return __builtin_bit_cast(float, static_cast<std::uint32_t>(u) << 16); }
  static Bits encode(float f) noexcept {
    const std::uint32_t u = __builtin_bit_cast(std::uint32_t, f);
    const std::uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    const std::uint32_t nan = ((u >> 16) & 0x8000) | kNan;
    return static_cast<Bits>(pick((u & 0x7fff'ffff) > 0x7f80'0000, nan, rounded));
  }
};

// A float of at most 16 bits: one sign, then exponent, then kMantissa bits. kMinExponent is that of the smallest normal
// number; kMax is the pattern that everything too large becomes (infinity, or NaN where there is none).
template <typename U, typename S, int kMantissa, int kMinExponent, unsigned kTopBits, unsigned kMax, unsigned kNanBits>
struct Small {
  using Bits = U;
  using Ordered = S;
  using Value = float;
  static constexpr int kShift = 23 - kMantissa;
  static constexpr unsigned kSign = 1U << (8 * sizeof(U) - 1);
  static constexpr std::uint32_t kBias = static_cast<std::uint32_t>(kMinExponent - 1 + 127) << 23;  // in float32 bits
  // The smallest subnormal number is 2^(kMinExponent - kMantissa); a float32 of this size has it as its last place.
  static constexpr std::uint32_t kMagic = static_cast<std::uint32_t>(kMinExponent - kMantissa + 23 + 127) << 23;
  static constexpr std::uint32_t kUnit = static_cast<std::uint32_t>(kMinExponent - kMantissa + 127) << 23;
  static constexpr Bits kTop = kTopBits, kNan = kNanBits;
  static constexpr Bits kOne = static_cast<Bits>((1 - kMinExponent) << kMantissa);

  static float decode(Bits u) noexcept {
    const std::uint32_t magnitude = u & (kSign - 1);
    const std::uint32_t sign = (static_cast<std::uint32_t>(u) & kSign) << (32 - 8 * sizeof(U));
    const std::uint32_t normal = (magnitude << kShift) + kBias;
    const float tiny = static_cast<float>(static_cast<std::int32_t>(magnitude)) * __builtin_bit_cast(float, kUnit);
    std::uint32_t r = pick(magnitude < (1U << kMantissa), __builtin_bit_cast(std::uint32_t, tiny), normal);
    if constexpr (kMax != kNanBits) r = pick(magnitude == kTopBits, std::uint32_t{0x7f80'0000}, r);
    r = pick(magnitude > kTopBits, std::uint32_t{0x7fc0'0000}, r);
    return __builtin_bit_cast(float, r | sign);
  }

  // Round to nearest, ties to even.
  static Bits encode(float f) noexcept {
    const std::uint32_t u = __builtin_bit_cast(std::uint32_t, f);
    const std::uint32_t magnitude = u & 0x7fff'ffff;
    const std::uint32_t sign = (u >> (32 - 8 * sizeof(U))) & kSign;
    const std::uint32_t odd = (magnitude >> kShift) & 1;
    const std::uint32_t normal = (magnitude + ((1U << (kShift - 1)) - 1 + odd) - kBias) >> kShift;
    const float shifted = __builtin_bit_cast(float, magnitude) + __builtin_bit_cast(float, kMagic);
    const std::uint32_t tiny = __builtin_bit_cast(std::uint32_t, shifted) - kMagic;
    std::uint32_t r = pick(magnitude < kBias + (1U << 23), tiny, normal);
    r = pick(r > kMax, std::uint32_t{kMax}, r);
    r = pick(magnitude > 0x7f80'0000, std::uint32_t{kNanBits}, r);
    return static_cast<Bits>(r | sign);
  }
};

using Float16 = Small<std::uint16_t, std::int16_t, 10, -14, 0x7c00, 0x7c00, 0x7e00>;
using Float8E4M3 = Small<std::uint8_t, std::int8_t, 3, -6, 0x7e, 0x7f, 0x7f>;
using Float8E5M2 = Small<std::uint8_t, std::int8_t, 2, -14, 0x7c, 0x7c, 0x7e>;

template <typename F>
constexpr bool kIsFloat = requires {
  F::kNan;
};

template <typename F>
constexpr bool kNarrow = sizeof(typename F::Bits) < 4;

// ---- operations on bit patterns ------------------------------------------------------------------------------------

// Arithmetic of small integers happens in 32 bits, where it cannot overflow a signed int.
template <typename U>
using Wide = decltype(U{} + 0U);

template <typename F>
struct IntSum {
  using U = typename F::Bits;
  static U apply(U a, U b) noexcept { return static_cast<U>(Wide<U>{a} + Wide<U>{b}); }
};
template <typename F>
struct IntProd {
  using U = typename F::Bits;
  static U apply(U a, U b) noexcept { return static_cast<U>(Wide<U>{a} * Wide<U>{b}); }
};
template <typename F>
struct IntMin {
  using U = typename F::Bits;
  using V = typename F::Value;
  static U apply(U a, U b) noexcept { return static_cast<V>(b) < static_cast<V>(a) ? b : a; }
};
template <typename F>
struct IntMax {
  using U = typename F::Bits;
  using V = typename F::Value;
  static U apply(U a, U b) noexcept { return static_cast<V>(a) < static_cast<V>(b) ? b : a; }
};
template <typename F>
struct BitAnd {
  using U = typename F::Bits;
  static U apply(U a, U b) noexcept { return static_cast<U>(a & b); }
};
template <typename F>
struct BitOr {
  using U = typename F::Bits;
  static U apply(U a, U b) noexcept { return static_cast<U>(a | b); }
};
template <typename F>
struct BitXor {
  using U = typename F::Bits;
  static U apply(U a, U b) noexcept { return static_cast<U>(a ^ b); }
};
template <typename F>
struct IntLand {
  using U = typename F::Bits;
  static U apply(U a, U b) noexcept { return static_cast<U>((a != 0) & (b != 0)); }
};
template <typename F>
struct IntLor {
  using U = typename F::Bits;
  static U apply(U a, U b) noexcept { return static_cast<U>((a | b) != 0); }
};
// Booleans: any byte but zero is true, results are 0 or 1.
template <typename F>
struct BoolXor {
  using U = typename F::Bits;
  static U apply(U a, U b) noexcept { return static_cast<U>((a != 0) ^ (b != 0)); }
};

template <typename F>
struct FloatSum {
  using U = typename F::Bits;
  static typename F::Value combine(typename F::Value a, typename F::Value b) noexcept { return a + b; }
  static U apply(U a, U b) noexcept { return F::encode(F::decode(a) + F::decode(b)); }
};
template <typename F>
struct FloatProd {
  using U = typename F::Bits;
  static typename F::Value combine(typename F::Value a, typename F::Value b) noexcept { return a * b; }
  static U apply(U a, U b) noexcept { return F::encode(F::decode(a) * F::decode(b)); }
};

// Minimum and maximum compare patterns as integers (magnitudes of negative numbers flipped), so -0 is less than +0; any
// NaN makes the result the one canonical NaN. The result thus depends on the set of inputs only, never on their order.
template <typename F>
struct FloatOrder {
  using U = typename F::Bits;
  using S = typename F::Ordered;
  static constexpr U kMagnitude = static_cast<U>(~U{0}) >> 1;
  static S key(U u) noexcept {
    const U flip = static_cast<U>(static_cast<S>(u) >> (8 * sizeof(U) - 1)) & kMagnitude;
    return static_cast<S>(u ^ flip);
  }
  static bool is_nan(U u) noexcept { return static_cast<U>(u & kMagnitude) > F::kTop; }
};
template <typename F>
struct FloatMin : FloatOrder<F> {
  using Order = FloatOrder<F>;
  using U = typename F::Bits;
  static U apply(U a, U b) noexcept {
    const U least = pick(Order::key(b) < Order::key(a), b, a);
    return pick(Order::is_nan(a) | Order::is_nan(b), F::kNan, least);
  }
};
template <typename F>
struct FloatMax : FloatOrder<F> {
  using Order = FloatOrder<F>;
  using U = typename F::Bits;
  static U apply(U a, U b) noexcept {
    const U most = pick(Order::key(a) < Order::key(b), b, a);
    return pick(Order::is_nan(a) | Order::is_nan(b), F::kNan, most);
  }
};
// Truth of a number: it is neither zero; a NaN is true.
template <typename F>
struct FloatLand {
  using U = typename F::Bits;
  static U apply(U a, U b) noexcept {
    constexpr U kMask = FloatOrder<F>::kMagnitude;
    return pick(((a & kMask) != 0) & ((b & kMask) != 0), F::kOne, U{0});
  }
};
template <typename F>
struct FloatLor {
  using U = typename F::Bits;
  static U apply(U a, U b) noexcept { return pick(((a | b) & FloatOrder<F>::kMagnitude) != 0, F::kOne, U{0}); }
};

// ---- two inputs ----------------------------------------------------------------------------------------------------

template <typename Op>
void reduce_two(void* out, const void* a, const void* b, std::size_t count) noexcept {
  using U = typename Op::U;
  PYCOMM_INDEPENDENT
  for (std::size_t i = 0; i < count; ++i) store<U>(out, i, Op::apply(load<U>(a, i), load<U>(b, i)));
}

// ---- narrow floats: through blocks of float32 that stay in the first-level cache -----------------------------------

constexpr std::size_t kBlock = 512;  // elements

template <typename F>
void decode_block(float* dst, const void* src, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) dst[i] = F::decode(load<typename F::Bits>(src, i));
}

template <typename F>
void encode_block(void* dst, const float* src, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) store<typename F::Bits>(dst, i, F::encode(src[i]));
}

#if PYCOMM_F16_LANES > 0
#if PYCOMM_F16_LANES == 16
// The unmasked forms read an undefined register in GCC's headers, which its own warnings then complain about.
constexpr __mmask16 kAllLanes = 0xffff;
inline void decode_lanes(float* dst, const char* src) noexcept {
  const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src));
  _mm512_storeu_ps(dst, _mm512_maskz_cvtph_ps(kAllLanes, h));
}
inline void encode_lanes(char* dst, const float* src) noexcept {
  const __m256i h =
      _mm512_maskz_cvtps_ph(kAllLanes, _mm512_loadu_ps(src), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst), h);
}
#else
inline void decode_lanes(float* dst, const char* src) noexcept {
  _mm256_storeu_ps(dst, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(src))));
}
inline void encode_lanes(char* dst, const float* src) noexcept {
  const __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(src), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(dst), h);
}
#endif

template <>
void decode_block<Float16>(float* dst, const void* src, std::size_t n) noexcept {
  const char* p = static_cast<const char*>(src);
  std::size_t i = 0;
  for (; i + PYCOMM_F16_LANES <= n; i += PYCOMM_F16_LANES) decode_lanes(dst + i, p + 2 * i);
  for (; i < n; ++i) dst[i] = Float16::decode(load<std::uint16_t>(src, i));
}

template <>
void encode_block<Float16>(void* dst, const float* src, std::size_t n) noexcept {
  char* p = static_cast<char*>(dst);
  std::size_t i = 0;
  for (; i + PYCOMM_F16_LANES <= n; i += PYCOMM_F16_LANES) encode_lanes(p + 2 * i, src + i);
  for (; i < n; ++i) store<std::uint16_t>(dst, i, Float16::encode(src[i]));
}
#endif

inline std::size_t block_size(std::size_t count, std::size_t at) noexcept {
  return count - at < kBlock ? count - at : kBlock;
}

inline const char* byte_at(const void* p, std::size_t offset) noexcept { return static_cast<const char*>(p) + offset; }
inline char* byte_at(void* p, std::size_t offset) noexcept { return static_cast<char*>(p) + offset; }

template <typename F, template <typename> class Op>
void reduce_two_narrow(void* out, const void* a, const void* b, std::size_t count) noexcept {
  float left[kBlock];
  float right[kBlock];
  for (std::size_t at = 0; at < count; at += kBlock) {
    const std::size_t n = block_size(count, at);
    const std::size_t offset = at * sizeof(typename F::Bits);
    decode_block<F>(left, byte_at(a, offset), n);
    decode_block<F>(right, byte_at(b, offset), n);
    for (std::size_t i = 0; i < n; ++i) left[i] = Op<F>::combine(left[i], right[i]);
    encode_block<F>(byte_at(out, offset), left, n);
  }
}

// ---- many inputs ---------------------------------------------------------------------------------------------------

template <typename Op>
void pass_four(void* out, const void* a, const void* b, const void* c, const void* d, std::size_t n) noexcept {
  using U = typename Op::U;
  PYCOMM_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) {
    const U u = Op::apply(Op::apply(load<U>(a, i), load<U>(b, i)), load<U>(c, i));
    store<U>(out, i, Op::apply(u, load<U>(d, i)));
  }
}

template <typename F>
void divide_bits(void* out, const void* a, std::size_t count, int divisor) noexcept;

// Whether an average makes sense of the op.
template <typename Op>
constexpr bool kDivides = false;
template <typename F>
constexpr bool kDivides<IntSum<F>> = true;
template <typename F>
constexpr bool kDivides<FloatSum<F>> = true;

// Average of integers below 64 bits: the exact sum, divided. Sums of up to 2^20 of them, and their quotients truncated,
// are exact in double (see divide_int).
template <typename F>
void average_many(void* out, const void* const* inputs, int n, std::size_t count, int divisor) noexcept {
  using U = typename F::Bits;
  using V = typename F::Value;
  double sum[kBlock];
  const double by = divisor;
  for (std::size_t at = 0; at < count; at += kBlock) {
    const std::size_t m = block_size(count, at);
    const std::size_t offset = at * sizeof(U);
    for (std::size_t i = 0; i < m; ++i) sum[i] = 0.0;
    for (int k = 0; k < n; ++k) {
      const void* in = byte_at(inputs[k], offset);
      for (std::size_t i = 0; i < m; ++i) sum[i] += static_cast<double>(static_cast<V>(load<U>(in, i)));
    }
    void* const to = byte_at(out, offset);
    for (std::size_t i = 0; i < m; ++i) store<U>(to, i, static_cast<U>(static_cast<std::int64_t>(sum[i] / by)));
  }
}

// `out` may be one of the inputs, so a block is complete in `sum` before any of it is written.
template <typename F, template <typename> class Op>
void reduce_many(void* out, const void* const* inputs, int n, std::size_t count, int divisor) noexcept {
  using U = typename F::Bits;
  if constexpr (kDivides<Op<F>> && !kIsFloat<F> && sizeof(U) < 8) {
    if (divisor > 1) return average_many<F>(out, inputs, n, count, divisor);
  }
  alignas(64) U sum[kBlock];
  for (std::size_t at = 0; at < count; at += kBlock) {
    const std::size_t m = block_size(count, at);
    const std::size_t offset = at * sizeof(U);
    const void* first = byte_at(inputs[0], offset);
    int k = 1;
    while (k < n) {
      const int left = n - k;
      void* const to = left == 1 || left == 3 ? byte_at(out, offset) : static_cast<void*>(sum);
      if (left >= 3) {
        pass_four<Op<F>>(left == 3 ? to : sum, first, byte_at(inputs[k], offset), byte_at(inputs[k + 1], offset),
                         byte_at(inputs[k + 2], offset), m);
        k += 3;
      } else {
        reduce_two<Op<F>>(to, first, byte_at(inputs[k], offset), m);
        k += 1;
      }
      first = sum;
    }
    if (n == 1) {
      if (byte_at(out, offset) != first) __builtin_memcpy(byte_at(out, offset), first, m * sizeof(U));
    }
    if constexpr (kDivides<Op<F>>) {
      if (divisor > 1) divide_bits<F>(byte_at(out, offset), byte_at(out, offset), m, divisor);
    }
  }
}

template <typename F, template <typename> class Op>
void reduce_many_narrow(void* out, const void* const* inputs, int n, std::size_t count, int divisor) noexcept {
  float sum[kBlock];
  float next[kBlock];
  for (std::size_t at = 0; at < count; at += kBlock) {
    const std::size_t m = block_size(count, at);
    const std::size_t offset = at * sizeof(typename F::Bits);
    decode_block<F>(sum, byte_at(inputs[0], offset), m);
    for (int k = 1; k < n; ++k) {
      decode_block<F>(next, byte_at(inputs[k], offset), m);
      for (std::size_t i = 0; i < m; ++i) sum[i] = Op<F>::combine(sum[i], next[i]);
    }
    if constexpr (kDivides<Op<F>>) {
      const float by = static_cast<float>(divisor > 1 ? divisor : 1);
      if (divisor > 1)
        for (std::size_t i = 0; i < m; ++i) sum[i] /= by;
    }
    encode_block<F>(byte_at(out, offset), sum, m);
  }
}

// ---- scaling -------------------------------------------------------------------------------------------------------

template <typename V>
inline V truncate_saturated(double x) noexcept {
  // Both limits are computed so that they are exact in double: the largest value may round up to a power of two.
  constexpr bool kHasSign = static_cast<V>(-1) < static_cast<V>(0);
  constexpr int kBits = static_cast<int>(8 * sizeof(V)) - (kHasSign ? 1 : 0);
  constexpr double kEnd = static_cast<double>(std::uint64_t{1} << (kBits - 1)) * 2.0;  // one past the largest
  constexpr V kMost = static_cast<V>(static_cast<std::uint64_t>(~std::uint64_t{0}) >> (64 - kBits));
  constexpr V kLeast = kHasSign ? static_cast<V>(-kMost - (kHasSign ? 1 : 0)) : V{0};
  if (x != x) return V{0};
  if (x >= kEnd) return kMost;
  if (x <= static_cast<double>(kLeast)) return kLeast;
  return static_cast<V>(x);
}

template <typename F>
void scale_int(void* out, const void* a, std::size_t count, double factor) noexcept {
  using U = typename F::Bits;
  using V = typename F::Value;
  for (std::size_t i = 0; i < count; ++i) {
    const double x = static_cast<double>(static_cast<V>(load<U>(a, i))) * factor;
    store<U>(out, i, static_cast<U>(truncate_saturated<V>(x)));
  }
}

template <typename F>
void scale_float(void* out, const void* a, std::size_t count, double factor) noexcept {
  using U = typename F::Bits;
  using V = typename F::Value;
  const V by = static_cast<V>(factor);
  if constexpr (kNarrow<F>) {
    float block[kBlock];
    for (std::size_t at = 0; at < count; at += kBlock) {
      const std::size_t n = block_size(count, at);
      decode_block<F>(block, byte_at(a, at * sizeof(U)), n);
      for (std::size_t i = 0; i < n; ++i) block[i] *= by;
      encode_block<F>(byte_at(out, at * sizeof(U)), block, n);
    }
  } else {
    PYCOMM_INDEPENDENT
    for (std::size_t i = 0; i < count; ++i) store<U>(out, i, F::encode(F::decode(load<U>(a, i)) * by));
  }
}

template <typename F>
void divide_int(void* out, const void* a, std::size_t count, int divisor) noexcept {
  using U = typename F::Bits;
  using V = typename F::Value;
  if constexpr (sizeof(U) < 8) {
    // A quotient of integers below 2^32 that is no integer is further from one than double rounds: truncating is exact.
    const double by = divisor;
    PYCOMM_INDEPENDENT
    for (std::size_t i = 0; i < count; ++i) {
      const double x = static_cast<double>(static_cast<V>(load<U>(a, i))) / by;
      store<U>(out, i, static_cast<U>(static_cast<V>(x)));
    }
  } else {
    const V by = static_cast<V>(divisor);
    for (std::size_t i = 0; i < count; ++i) {
      store<U>(out, i, static_cast<U>(static_cast<V>(load<U>(a, i)) / by));
    }
  }
}

template <typename F>
void divide_float(void* out, const void* a, std::size_t count, int divisor) noexcept {
  using U = typename F::Bits;
  using V = typename F::Value;
  const V by = static_cast<V>(divisor);
  if constexpr (kNarrow<F>) {
    float block[kBlock];
    for (std::size_t at = 0; at < count; at += kBlock) {
      const std::size_t n = block_size(count, at);
      decode_block<F>(block, byte_at(a, at * sizeof(U)), n);
      for (std::size_t i = 0; i < n; ++i) block[i] /= by;
      encode_block<F>(byte_at(out, at * sizeof(U)), block, n);
    }
  } else {
    PYCOMM_INDEPENDENT
    for (std::size_t i = 0; i < count; ++i) store<U>(out, i, F::encode(F::decode(load<U>(a, i)) / by));
  }
}

template <typename F>
void divide_bits(void* out, const void* a, std::size_t count, int divisor) noexcept {
  if constexpr (kIsFloat<F>)
    divide_float<F>(out, a, count, divisor);
  else
    divide_int<F>(out, a, count, divisor);
}

inline void copy_bool(void* out, const void* a, std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) store<std::uint8_t>(out, i, load<std::uint8_t>(a, i) != 0);
}

// ---- the table -----------------------------------------------------------------------------------------------------

struct Table {
  Kernels kernels;

  template <typename F, template <typename> class Op>
  void set(DType dtype, ReduceOp op) noexcept {
    const auto d = static_cast<std::size_t>(dtype);
    const auto o = static_cast<std::size_t>(op);
    kernels.reduce[d][o] = reduce_two<Op<F>>;
    kernels.many[d][o] = reduce_many<F, Op>;
  }

  // Sums and products of floats: the narrow ones pass through float32.
  template <typename F, template <typename> class Op>
  void set_arithmetic(DType dtype, ReduceOp op) noexcept {
    if constexpr (kNarrow<F>) {
      const auto d = static_cast<std::size_t>(dtype);
      const auto o = static_cast<std::size_t>(op);
      kernels.reduce[d][o] = reduce_two_narrow<F, Op>;
      kernels.many[d][o] = reduce_many_narrow<F, Op>;
    } else {
      set<F, Op>(dtype, op);
    }
  }

  template <typename F>
  void set_float(DType dtype) noexcept {
    set_arithmetic<F, FloatSum>(dtype, ReduceOp::sum);
    set_arithmetic<F, FloatProd>(dtype, ReduceOp::prod);
    set_arithmetic<F, FloatSum>(dtype, ReduceOp::avg);
    set_arithmetic<F, FloatSum>(dtype, ReduceOp::premul_sum);
    set<F, FloatMin>(dtype, ReduceOp::min);
    set<F, FloatMax>(dtype, ReduceOp::max);
    set<F, FloatLand>(dtype, ReduceOp::land);
    set<F, FloatLor>(dtype, ReduceOp::lor);
    kernels.scale[static_cast<std::size_t>(dtype)] = scale_float<F>;
    kernels.divide[static_cast<std::size_t>(dtype)] = divide_float<F>;
  }

  // `F` decides what depends on the sign, `Same` is the unsigned format that shares everything else.
  template <typename F, typename Same>
  void set_int(DType dtype) noexcept {
    set<Same, IntSum>(dtype, ReduceOp::sum);
    set<Same, IntProd>(dtype, ReduceOp::prod);
    set<F, IntSum>(dtype, ReduceOp::avg);
    set<Same, IntSum>(dtype, ReduceOp::premul_sum);
    set<F, IntMin>(dtype, ReduceOp::min);
    set<F, IntMax>(dtype, ReduceOp::max);
    set<Same, BitAnd>(dtype, ReduceOp::band);
    set<Same, BitOr>(dtype, ReduceOp::bor);
    set<Same, BitXor>(dtype, ReduceOp::bxor);
    set<Same, IntLand>(dtype, ReduceOp::land);
    set<Same, IntLor>(dtype, ReduceOp::lor);
    const auto d = static_cast<std::size_t>(dtype);
    // Dividing a sum by the number of its terms needs the sign; the two-input sum does not.
    kernels.many[d][static_cast<std::size_t>(ReduceOp::sum)] = reduce_many<F, IntSum>;
    kernels.many[d][static_cast<std::size_t>(ReduceOp::premul_sum)] = reduce_many<F, IntSum>;
    kernels.scale[d] = scale_int<F>;
    kernels.divide[d] = divide_int<F>;
  }

  void set_bool() noexcept {
    using F = Unsigned<std::uint8_t>;
    for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::lor, ReduceOp::bor})
      set<F, IntLor>(DType::boolean, op);
    for (const ReduceOp op : {ReduceOp::prod, ReduceOp::min, ReduceOp::land, ReduceOp::band})
      set<F, IntLand>(DType::boolean, op);
    set<F, BoolXor>(DType::boolean, ReduceOp::bxor);
    kernels.scale[static_cast<std::size_t>(DType::boolean)] = [](void* out, const void* a, std::size_t n,
                                                                 double) noexcept { copy_bool(out, a, n); };
    kernels.divide[static_cast<std::size_t>(DType::boolean)] = [](void* out, const void* a, std::size_t n,
                                                                  int) noexcept { copy_bool(out, a, n); };
  }

  explicit Table(const char* isa) noexcept {
    kernels.isa = isa;
    set_float<Float64>(DType::float64);
    set_float<Float32>(DType::float32);
    set_float<Float16>(DType::float16);
    set_float<BFloat16>(DType::bfloat16);
    set_float<Float8E4M3>(DType::float8_e4m3fn);
    set_float<Float8E5M2>(DType::float8_e5m2);
    set_int<Signed<std::int8_t, std::uint8_t>, Unsigned<std::uint8_t>>(DType::int8);
    set_int<Signed<std::int16_t, std::uint16_t>, Unsigned<std::uint16_t>>(DType::int16);
    set_int<Signed<std::int32_t, std::uint32_t>, Unsigned<std::uint32_t>>(DType::int32);
    set_int<Signed<std::int64_t, std::uint64_t>, Unsigned<std::uint64_t>>(DType::int64);
    set_int<Unsigned<std::uint8_t>, Unsigned<std::uint8_t>>(DType::uint8);
    set_int<Unsigned<std::uint16_t>, Unsigned<std::uint16_t>>(DType::uint16);
    set_int<Unsigned<std::uint32_t>, Unsigned<std::uint32_t>>(DType::uint32);
    set_int<Unsigned<std::uint64_t>, Unsigned<std::uint64_t>>(DType::uint64);
    set_bool();
  }
};
