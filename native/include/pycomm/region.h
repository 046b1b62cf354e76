// The memory that ranks of one group share: each rank owns one region, every rank of the host maps all of them.
//
//   region of rank r: [RegionHeader | flat area (flat.h) | frame rings, one per source (shm transport)]
//
// Regions start as zeroes; every part must treat all-zero as its initial state. Ranks that are threads of one process
// use plain heap memory with the same layout.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pycomm/wait.h"

namespace pycomm {

struct alignas(64) RegionHeader {
  std::uint32_t magic;
  std::uint32_t owner;  // rank in the group
  std::uint64_t group;
  std::uint8_t proof_owner[16];   // nonce written by the owner before it hands the region out
  std::uint8_t proof_mapper[16];  // nonce written by a mapper, read back by the owner: the memory is really shared
  Doorbell bell;                  // wakes the owner
};

// What a rank knows of its group's shared memory. Entry i belongs to rank i of the group; null where that rank's memory
// is not shared with this process.
struct Regions {
  std::vector<std::byte*> base;
  std::size_t nbytes = 0;  // of each region
  RegionHeader& header(int rank) const noexcept {
    return *reinterpret_cast<RegionHeader*>(base[static_cast<std::size_t>(rank)]);
  }
  bool shared_by_all() const noexcept {
    for (const std::byte* p : base)
      if (p == nullptr) return false;
    return true;
  }
};

}  // namespace pycomm
