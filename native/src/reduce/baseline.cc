// Kernels for the CPU that the compiler targets by default: runs everywhere.
#include <cstdint>

#include "reduce/kernels.h"

namespace pycomm::reduce {
namespace baseline {
namespace {
#define PYCOMM_F16_LANES 0
#include "reduce/loops.h"  // NOLINT: the loops, compiled for this file's instruction set
}  // namespace
}  // namespace baseline

const Kernels* baseline_kernels() noexcept {
  static const baseline::Table kTable("baseline");
  return &kTable.kernels;
}

}  // namespace pycomm::reduce
