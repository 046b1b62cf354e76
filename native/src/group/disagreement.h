// Ranks that made different calls: how each of them learns both sides.
//
// Whoever finds a frame of another call tells all members what it calls itself (a *dissent*: its rank and Descriptor).
// A rank that hears a dissent and calls something else tells its own, once. Whoever knows two different descriptors for
// an operation, its own included, can show both sides and ends the operation.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>

#include "pycomm/status.h"
#include "pycomm/types.h"

namespace pycomm {

// What to do after something was learnt.
struct Verdict {
  bool tell = false;             // send our own descriptor of `seq` to all members
  std::optional<Status> status;  // both sides are known: end the operation with this
};

// Thread-safe.
class Disagreement {
 public:
  explicit Disagreement(int rank) : rank_(rank) {}
  // Our own call number `seq` begins.
  Verdict begin(std::uint64_t seq, const Descriptor& ours);
  // A frame of `seq` carried another agreement than ours.
  Verdict found(std::uint64_t seq);
  // A member told its descriptor of `seq`.
  Verdict heard(std::uint64_t seq, int rank, const Descriptor& theirs);
  // Our own descriptor of a recent call; empty when it is not remembered.
  std::optional<Descriptor> ours(std::uint64_t seq) const;

 private:
  struct Entry {
    std::optional<Descriptor> ours;
    std::optional<Descriptor> first;  // dissents, two different ones at most
    std::optional<Descriptor> second;
    int first_rank = -1;
    int second_rank = -1;
    bool told = false;
  };
  Verdict judge(std::uint64_t seq, Entry& entry);
  void forget_before(std::uint64_t seq);

  const int rank_;
  mutable std::mutex mutex_;
  std::map<std::uint64_t, Entry> entries_;
};

// Whether two ranks make the same call (the factor may differ).
bool same_call(const Descriptor& a, const Descriptor& b) noexcept;

}  // namespace pycomm
