// Regions for ranks that are threads of one process: plain heap memory with the layout of shared regions. The frame
// rings of the shm transport work over them unchanged, so that tests and sanitizers exercise the code that processes
// run.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "pycomm/region.h"

namespace pycomm {

// Owns zeroed, lazily touched regions for `nranks` ranks. Give each rank a copy of regions().
class HeapRegions {
 public:
  HeapRegions(int nranks, std::size_t nbytes);
  const Regions& regions() const noexcept { return regions_; }

 private:
  struct Free {
    std::size_t nbytes;
    void operator()(std::byte* memory) const noexcept;
  };
  std::vector<std::unique_ptr<std::byte, Free>> memory_;
  Regions regions_;
};

}  // namespace pycomm
