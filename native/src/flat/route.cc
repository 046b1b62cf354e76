#include "flat/route.h"

#include <algorithm>

namespace pycomm::flat {
namespace {

// Every rank has one block; receivers want all of them, in rank order.
void plan_gather(const FlatCall& call, int rank, int nranks, bool receives, Route& route) {
  const std::size_t item = itemsize(call.desc.dtype);
  route.same_to_all = true;
  std::size_t at = 0;
  for (int peer = 0; peer < nranks; ++peer) {
    const auto p = static_cast<std::size_t>(peer);
    const std::size_t nbytes = block_count(call, peer) * item;
    if (receives) route.incoming[p] = {at, nbytes};
    if (peer == rank) route.outgoing[p] = {0, nbytes};
    route.longest = std::max(route.longest, nbytes);
    at += nbytes;
  }
}

// The root has one block for each rank, in rank order.
void plan_scatter(const FlatCall& call, int rank, int nranks, Route& route) {
  const std::size_t item = itemsize(call.desc.dtype);
  const auto root = static_cast<std::size_t>(call.desc.root);
  std::size_t at = 0;
  for (int peer = 0; peer < nranks; ++peer) {
    const std::size_t nbytes = block_count(call, peer) * item;
    if (rank == call.desc.root) route.outgoing[static_cast<std::size_t>(peer)] = {at, nbytes};
    if (rank == peer) {
      route.incoming[root] = {0, nbytes};
      route.source[root] = at;
    }
    route.longest = std::max(route.longest, nbytes);
    at += nbytes;
  }
}

void plan_broadcast(const FlatCall& call, int rank, Route& route) {
  const std::size_t nbytes = static_cast<std::size_t>(call.desc.count) * itemsize(call.desc.dtype);
  const auto root = static_cast<std::size_t>(call.desc.root);
  route.same_to_all = true;
  route.longest = nbytes;
  if (rank == call.desc.root) route.outgoing[root] = {0, nbytes};
  if (call.recv != nullptr) route.incoming[root] = {0, nbytes};
}

// Row s, column d of the count table is what s sends to d.
void plan_alltoall(const FlatCall& call, int rank, int nranks, Route& route) {
  const std::size_t item = itemsize(call.desc.dtype);
  const auto n = static_cast<std::size_t>(nranks);
  const auto me = static_cast<std::size_t>(rank);
  const auto nbytes = [&](std::size_t src, std::size_t dst) {
    const std::uint64_t count =
        call.counts != nullptr ? static_cast<std::uint64_t>(call.counts[src * n + dst]) : call.desc.count;
    return static_cast<std::size_t>(count) * item;
  };
  std::size_t out = 0;
  std::size_t in = 0;
  for (std::size_t peer = 0; peer < n; ++peer) {
    route.outgoing[peer] = {out, nbytes(me, peer)};
    route.incoming[peer] = {in, nbytes(peer, me)};
    out += route.outgoing[peer].nbytes;
    in += route.incoming[peer].nbytes;
    route.source[peer] = me * nbytes(peer, me);
  }
  if (call.counts == nullptr) {
    route.longest = nbytes(0, 0);
    return;
  }
  for (std::size_t src = 0; src < n; ++src) {
    route.source[src] = 0;
    for (std::size_t dst = 0; dst < n; ++dst) {
      if (dst < me) route.source[src] += nbytes(src, dst);
      route.longest = std::max(route.longest, nbytes(src, dst));
    }
  }
}

}  // namespace

void plan_route(const FlatCall& call, int rank, int nranks, Route& route) {
  route.same_to_all = false;
  route.longest = 0;
  route.outgoing.assign(static_cast<std::size_t>(nranks), {});
  route.incoming.assign(static_cast<std::size_t>(nranks), {});
  route.source.assign(static_cast<std::size_t>(nranks), 0);
  switch (call.desc.kind) {
    case Kind::allgather:
    case Kind::allgatherv:
      return plan_gather(call, rank, nranks, true, route);
    case Kind::gather:
    case Kind::gatherv:
      return plan_gather(call, rank, nranks, rank == call.desc.root, route);
    case Kind::scatter:
    case Kind::scatterv:
      return plan_scatter(call, rank, nranks, route);
    case Kind::alltoall:
    case Kind::alltoallv:
      return plan_alltoall(call, rank, nranks, route);
    default:
      return plan_broadcast(call, rank, route);
  }
}

}  // namespace pycomm::flat
