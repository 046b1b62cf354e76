// Local arithmetic: combining two arrays of any supported type with any supported op, vectorised for the CPU at hand.
#pragma once

#include <cstddef>

#include "pycomm/types.h"

namespace pycomm {

// out[i] = a[i] (op) b[i] for i < count. `out` may equal `a` or `b`; otherwise the three do not overlap. Any alignment.
// avg and premul_sum combine as sum here; scaling is `scale` below. Thread-safe, never blocks, never allocates.
using ReduceFn = void (*)(void* out, const void* a, const void* b, std::size_t count) noexcept;

// nullptr when the op makes no sense on the type (see DType.supports in pycomm/types.py).
ReduceFn reduce_fn(DType dtype, ReduceOp op) noexcept;

// out[i] = round(a[0][i] (op) a[1][i] (op) ... a[n-1][i]): accumulated in order, half and float8 types in float32 and
// rounded once at the end (wider types natively). `divisor` > 1 divides the exact accumulation before rounding (avg;
// integers truncate toward zero). `out` may equal any one of the inputs. nullptr result: op unsupported on the type.
using ReduceManyFn = void (*)(void* out, const void* const* inputs, int n, std::size_t count, int divisor) noexcept;
ReduceManyFn reduce_many_fn(DType dtype, ReduceOp op) noexcept;

// out[i] = round(a[i] * factor) (floats: in float32 at least; integers: factor applied in double, truncated toward zero
// and saturated). `out` may equal `a`.
void scale(DType dtype, void* out, const void* a, std::size_t count, double factor) noexcept;

// out[i] = a[i] / divisor, integers truncating toward zero. The last step of avg.
void divide(DType dtype, void* out, const void* a, std::size_t count, int divisor) noexcept;

// memcpy that may have nothing to copy, or nowhere to copy it to but where it is.
void copy_bytes(void* dst, const void* src, std::size_t nbytes) noexcept;

// Name of the instruction set chosen at run time ("avx512", "avx2", "baseline", ...), for `pycomm doctor`.
const char* reduce_isa() noexcept;

}  // namespace pycomm
