#include "group/disagreement.h"

#include <cstring>
#include <string>

#include "pycomm/flat.h"

namespace pycomm {
namespace {

constexpr std::uint64_t kRemembered = 64;  // operations whose descriptors are kept for late dissents

}  // namespace

bool same_call(const Descriptor& a, const Descriptor& b) noexcept {
  return std::memcmp(&a, &b, offsetof(Descriptor, factor)) == 0;
}

Verdict Disagreement::begin(std::uint64_t seq, const Descriptor& ours) {
  const std::lock_guard lock(mutex_);
  forget_before(seq);
  Entry& entry = entries_[seq];
  entry.ours = ours;
  return judge(seq, entry);
}

Verdict Disagreement::found(std::uint64_t seq) {
  const std::lock_guard lock(mutex_);
  const auto at = entries_.find(seq);
  if (at == entries_.end() || !at->second.ours || at->second.told) return {};
  at->second.told = true;
  return {true, {}};
}

Verdict Disagreement::heard(std::uint64_t seq, int rank, const Descriptor& theirs) {
  const std::lock_guard lock(mutex_);
  Entry& entry = entries_[seq];
  if (!entry.first) {
    entry.first = theirs;
    entry.first_rank = rank;
  } else if (!entry.second && !same_call(*entry.first, theirs)) {
    entry.second = theirs;
    entry.second_rank = rank;
  }
  return judge(seq, entry);
}

std::optional<Descriptor> Disagreement::ours(std::uint64_t seq) const {
  const std::lock_guard lock(mutex_);
  const auto at = entries_.find(seq);
  return at == entries_.end() ? std::nullopt : at->second.ours;
}

Verdict Disagreement::judge(std::uint64_t seq, Entry& entry) {
  Verdict verdict;
  if (!entry.ours || !entry.first) return verdict;
  const Descriptor* other = nullptr;
  int other_rank = -1;
  if (!same_call(*entry.ours, *entry.first)) {
    other = &*entry.first;
    other_rank = entry.first_rank;
    verdict.tell = !entry.told;
    entry.told = true;
  } else if (entry.second) {
    other = &*entry.second;
    other_rank = entry.second_rank;
  }
  if (other == nullptr) return verdict;
  verdict.status =
      Status(Code::mismatch,
             "ranks disagree in operation " + std::to_string(seq) + " of this group: rank " + std::to_string(rank_) +
                 ": " + describe(*entry.ours) + "; rank " + std::to_string(other_rank) + ": " + describe(*other) +
                 "; make the same call on every rank (the group stays usable)",
             {rank_, other_rank});
  return verdict;
}

void Disagreement::forget_before(std::uint64_t seq) {
  while (!entries_.empty() && entries_.begin()->first + kRemembered < seq) entries_.erase(entries_.begin());
}

}  // namespace pycomm
