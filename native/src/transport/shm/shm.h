// Frames through shared memory: for each source a byte ring in the region of the destination.
#pragma once

#include <cstddef>
#include <memory>

#include "pycomm/region.h"
#include "pycomm/transport.h"

namespace pycomm {

// Bytes that each rank's region needs for the rings of a group of this size. Multiple of 64.
std::size_t shm_area_size(int nranks) noexcept;

// A transport to every peer whose region is mapped here. `offset` is where the rings begin in each region (multiple of
// 64); regions outlive the transport. `name` is "shm", or "inproc" when the ranks are threads and the regions plain
// heap memory (HeapRegions): one implementation serves both.
std::unique_ptr<Transport> make_shm_transport(const Regions& regions, std::size_t offset, int rank,
                                              const char* name = "shm");

}  // namespace pycomm
