#include "flat/peer_memory.h"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/random.h"

namespace pycomm::flat {
namespace {

std::uint64_t address_of(const void* pointer) noexcept { return reinterpret_cast<std::uintptr_t>(pointer); }

int read_process(std::int64_t process, void* to, std::uint64_t from, std::size_t nbytes) noexcept {
  auto* at = static_cast<std::byte*>(to);
  while (nbytes != 0) {
    const iovec here{at, nbytes};
    const iovec there{reinterpret_cast<void*>(from), nbytes};  // NOLINT(performance-no-int-to-ptr): not ours
    const ssize_t got = ::process_vm_readv(static_cast<pid_t>(process), &here, 1, &there, 1, 0);
    if (got <= 0) return got < 0 ? errno : EFAULT;
    at += got;
    from += static_cast<std::uint64_t>(got);
    nbytes -= static_cast<std::size_t>(got);
  }
  return 0;
}

}  // namespace

PeerMemory::PeerMemory(bool allowed, int nranks)
    : allowed_(allowed), proof_(random_u64()), offers_(static_cast<std::size_t>(nranks)) {}

Offer PeerMemory::offer(const std::byte* send, std::size_t nbytes, const std::byte* recv, bool still) const noexcept {
  const std::int64_t self = ::getpid();
  const auto readable = [self](const std::byte* at) {
    std::byte unused;
    return read_process(self, &unused, address_of(at), 1) == 0;
  };
  const bool ready = still && (nbytes == 0 || (readable(send) && readable(send + nbytes - 1)));
  return {self, address_of(&proof_), proof_, address_of(send), address_of(recv), ready ? 1U : 0U};
}

void PeerMemory::note(int rank, const std::byte* offer) noexcept {
  std::memcpy(&offers_[static_cast<std::size_t>(rank)], offer, sizeof(Offer));
}

bool PeerMemory::all_ready() const noexcept {
  return std::all_of(offers_.begin(), offers_.end(), [](const Offer& offer) { return offer.ready != 0; });
}

bool PeerMemory::finds_proofs() const noexcept {
  return allowed_ && std::all_of(offers_.begin(), offers_.end(), [](const Offer& offer) {
           std::uint64_t found = 0;
           return read_process(offer.process, &found, offer.proof_at, sizeof found) == 0 && found == offer.proof;
         });
}

int PeerMemory::read(int rank, std::byte* to, std::uint64_t from, std::size_t nbytes) const noexcept {
  return read_process(of(rank).process, to, from, nbytes);
}

}  // namespace pycomm::flat
