#include "transport/inproc/inproc.h"

#include <sys/mman.h>

#include <new>

namespace pycomm {

void HeapRegions::Free::operator()(std::byte* memory) const noexcept { munmap(memory, nbytes); }

HeapRegions::HeapRegions(int nranks, std::size_t nbytes) {
  regions_.nbytes = nbytes;
  for (int rank = 0; rank < nranks; ++rank) {
    void* memory = mmap(nullptr, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    memory_.emplace_back(static_cast<std::byte*>(memory), Free{nbytes});
    regions_.base.push_back(memory_.back().get());
    regions_.header(rank).owner = static_cast<std::uint32_t>(rank);
  }
}

}  // namespace pycomm
