// Memory lent to sends: it may be written again only when the receiver is known to have it.
//
// A send is read at some moment between being posted and being received, nobody knows when. The write is sound exactly
// when the receive happens before it: when a chain of messages leads from the receiver, after the receive, to the
// writer, before the write. Vector clocks tell: each rank knows of each interesting rank how many receives it has made.
#pragma once

#include <cstdint>
#include <vector>

#include "verify/verify.h"

namespace pycomm::verify {

// A write that needs the receive of an earlier send to have happened before it.
struct Obligation {
  std::int64_t row;       // the write
  std::int64_t place;     // where
  std::int64_t send_row;  // the send that lends the place
  std::int32_t receiver;  // index among the clocks' dimensions
  std::int32_t receives;  // the receiver must have made this many
};

// Everything static: found by one look at each program, in order of row.
struct Lending {
  std::vector<Obligation> obligations;
  std::vector<std::int32_t> dimension;  // by rank: index in a clock, -1 where nobody's write waits for its receives
  std::vector<std::int32_t> receives;   // by row: how many receives its rank has made once it is done
  std::int32_t ndimensions = 0;
};

Lending find_obligations(const Programs& programs, const Matching& matching, const Memory& memory);

// What every rank knows. Clocks that several messages and ranks share are stored once.
class Clocks {
 public:
  Clocks(const Lending& lending, int nranks);
  void sent(int rank, std::int64_t row);
  void received(int rank, std::int64_t row, std::int64_t send_row);
  bool knows(int rank, const Obligation& obligation) const noexcept {
    return at(clock_of_rank_[static_cast<std::size_t>(rank)])[obligation.receiver] >= obligation.receives;
  }

 private:
  std::int32_t* at(std::int32_t clock) noexcept { return &values_[static_cast<std::size_t>(clock) * size_]; }
  const std::int32_t* at(std::int32_t clock) const noexcept {
    return &values_[static_cast<std::size_t>(clock) * size_];
  }
  std::int32_t take();
  void drop(std::int32_t clock);
  std::int32_t own(int rank);

  const Lending& lending_;
  std::size_t size_;
  std::vector<std::int32_t> values_;
  std::vector<std::int32_t> users_;  // by clock
  std::vector<std::int32_t> free_;
  std::vector<std::int32_t> clock_of_rank_;
  std::vector<std::int32_t> clock_of_message_;  // by row of the send
};

}  // namespace pycomm::verify
