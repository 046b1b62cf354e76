// The enumerations and records that every part of the core shares. Numbers are part of the wire format and equal those
// of pycomm/types.py (checked by tests/unit/test_core_types.py).
#pragma once

#include <cstddef>
#include <cstdint>

namespace pycomm {

enum class Kind : std::uint8_t {
  allreduce,
  allgather,
  reduce_scatter,
  alltoall,
  broadcast,
  reduce,
  gather,
  scatter,
  barrier,
  allgatherv,
  reduce_scatterv,
  alltoallv,
  gatherv,
  scatterv,
  send,
  recv,
};

enum class ReduceOp : std::uint8_t { sum, prod, min, max, avg, premul_sum, band, bor, bxor, land, lor };

enum class DType : std::uint8_t {
  float64,
  float32,
  float16,
  bfloat16,
  float8_e4m3fn,
  float8_e5m2,
  int8,
  int16,
  int32,
  int64,
  uint8,
  uint16,
  uint32,
  uint64,
  boolean,
};

constexpr std::size_t itemsize(DType dtype) noexcept {
  constexpr std::uint8_t kSizes[] = {8, 4, 2, 2, 1, 1, 1, 2, 4, 8, 1, 2, 4, 8, 1};
  return kSizes[static_cast<std::size_t>(dtype)];
}

// What a call is, as every rank of the group must agree on it. Exactly 64 bytes without padding, so that it can be
// copied into a cache line and compared bytewise. `plan` is the digest of the schedule that will run (0: one of the
// engine's own algorithms); `counts` is a hash of the count table of a ragged call (0 otherwise).
struct Descriptor {
  Kind kind;
  DType dtype;
  ReduceOp op;
  std::uint8_t flags;   // bit 0: round once (deterministic accumulation)
  std::int32_t root;    // -1 when the collective has none
  std::uint64_t count;  // elements of the per-rank block (allreduce, broadcast, reduce: of the whole array)
  std::uint64_t plan;
  std::uint64_t counts;
  double factor;  // premul_sum; 0 otherwise (not compared: ranks may scale differently)
  std::uint64_t reserved[3];
};
static_assert(sizeof(Descriptor) == 64);

}  // namespace pycomm
