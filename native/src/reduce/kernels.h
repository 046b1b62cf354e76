// The arithmetic compiled once per instruction set, and the table through which the rest of the core reaches it.
//
// Every kernel works on bit patterns (unsigned integers of the element's size), so that one loop serves all types that
// share an operation: wrap-around integers and bitwise ops by width, minimum and maximum of any float by ordered bits.
#pragma once

#include <cstddef>
#include <span>

#include "pycomm/reduce.h"
#include "pycomm/types.h"

namespace pycomm::reduce {

constexpr std::size_t kDTypes = static_cast<std::size_t>(DType::boolean) + 1;
constexpr std::size_t kOps = static_cast<std::size_t>(ReduceOp::lor) + 1;

using ScaleFn = void (*)(void* out, const void* a, std::size_t count, double factor) noexcept;
using DivideFn = void (*)(void* out, const void* a, std::size_t count, int divisor) noexcept;

// What one instruction set offers; nullptr where the op makes no sense on the type.
struct Kernels {
  const char* isa = "";
  ReduceFn reduce[kDTypes][kOps] = {};
  ReduceManyFn many[kDTypes][kOps] = {};
  ScaleFn scale[kDTypes] = {};
  DivideFn divide[kDTypes] = {};
};

// Defined in the file of that name; null when the compiler's target has no such instructions.
const Kernels* baseline_kernels() noexcept;
const Kernels* avx2_kernels() noexcept;
const Kernels* avx512_kernels() noexcept;

// Those that this CPU can run, the best first. Never empty.
std::span<const Kernels* const> usable_kernels() noexcept;

}  // namespace pycomm::reduce
