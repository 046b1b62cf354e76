// Who moves what to whom: the nine collectives that only move data, brought to one form.
#pragma once

#include <cstddef>
#include <vector>

#include "pycomm/flat.h"

namespace pycomm::flat {

// A run of bytes in one of the caller's buffers.
struct Extent {
  std::size_t at = 0;
  std::size_t nbytes = 0;
};

// One rank's part. Memory is kept from call to call, so that planning a call allocates only the first time.
struct Route {
  bool same_to_all = false;         // every receiver gets the same bytes: outgoing[rank] alone describes them
  std::size_t longest = 0;          // of all transfers between any two ranks; the same on every rank
  std::vector<Extent> outgoing;     // to each rank, in send
  std::vector<Extent> incoming;     // from each rank, in recv
  std::vector<std::size_t> source;  // where in its send that begins
};

// Fills `route` for a kind that does not reduce, other than barrier.
void plan_route(const FlatCall& call, int rank, int nranks, Route& route);

// Elements of block `block` of a call with one block per rank.
inline std::size_t block_count(const FlatCall& call, int block) noexcept {
  return static_cast<std::size_t>(call.counts != nullptr ? static_cast<std::uint64_t>(call.counts[block])
                                                         : call.desc.count);
}

}  // namespace pycomm::flat
