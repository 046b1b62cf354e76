// The memory of peers, read by address through the kernel (process_vm_readv), with no slot between.
//
// Read, never written: a rank whose operation fails leaves at once, and its caller may free or reuse the memory while a
// peer is still at it. Who reads too late finds other bytes or an error; it sees that the rank has withdrawn (board.h)
// and does not succeed. Who wrote too late would destroy what is no longer ours.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "flat/board.h"

namespace pycomm::flat {

// What a rank shows before others read its memory. Travels in a line.
struct Offer {
  std::int64_t process;
  std::uint64_t proof_at;  // address of `proof` there
  std::uint64_t proof;
  std::uint64_t send;  // addresses of the call's buffers
  std::uint64_t recv;
  std::uint64_t ready;  // 1: they can be read in this call
};
static_assert(sizeof(Offer) <= kInlineBytes);

// One rank's view. Not thread-safe. Stays where it was made, since peers read its proof.
class PeerMemory {
 public:
  // `allowed`: this rank takes part; where one does not, none does.
  PeerMemory(bool allowed, int nranks);
  PeerMemory(const PeerMemory&) = delete;
  PeerMemory& operator=(const PeerMemory&) = delete;

  // Whether all ranks read all others' memory: unknown until the first call that might, then settled for good.
  bool refused() const noexcept { return state_ == State::refused; }
  bool proved() const noexcept { return state_ == State::proved; }
  void settle(bool everybody_can) noexcept { state_ = everybody_can ? State::proved : State::refused; }

  // This rank's offer; ready when `still` (nobody writes where others read) and the kernel reads [send, send + nbytes)
  // for others, as it does not if it is memory of a device.
  Offer offer(const std::byte* send, std::size_t nbytes, const std::byte* recv, bool still) const noexcept;
  // Takes down what `rank` offers in this call.
  void note(int rank, const std::byte* offer) noexcept;
  const Offer& of(int rank) const noexcept { return offers_[static_cast<std::size_t>(rank)]; }
  bool all_ready() const noexcept;
  // Whether every rank's proof is where it says: the process is the right one and lets this one read.
  bool finds_proofs() const noexcept;

  // Copies from address `from` of the process of `rank`. 0, or the error.
  int read(int rank, std::byte* to, std::uint64_t from, std::size_t nbytes) const noexcept;

 private:
  enum class State : std::uint8_t { unknown, proved, refused };

  const bool allowed_;
  const std::uint64_t proof_;
  State state_ = State::unknown;
  std::vector<Offer> offers_;  // by rank
};

}  // namespace pycomm::flat
