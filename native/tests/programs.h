// Programs of a few collectives, written out by hand for the executor's tests.
#pragma once

#include <cstdint>
#include <vector>

#include "pycomm/plan.h"

namespace pycomm::testing {

constexpr int kInput = 0;
constexpr int kOutput = 1;
constexpr int kScratch = 2;

// One rank's table and chunk boundaries. Spaces are cut into equal numbers of chunks of `boundaries`.
struct Program {
  Kind kind = Kind::allreduce;
  int rank = 0;
  int nranks = 1;
  int root = -1;
  int pieces = 1;
  bool in_place = false;
  std::vector<std::int32_t> ops;
  std::vector<std::int64_t> bounds[3];

  void add(OpKind op, int peer, int channel, int src_space, int src, int dst_space, int dst, int count = 1) {
    ops.insert(ops.end(), {static_cast<int>(op), peer, channel, src_space, src, dst_space, dst, count});
  }
  Result<BoundPlan> bind(std::size_t itemsize, std::size_t segment_nbytes = kMaxFramePayload) const {
    PlanSpec spec;
    spec.kind = kind;
    spec.rank = rank;
    spec.nranks = nranks;
    spec.root = root;
    spec.pieces = pieces;
    spec.in_place = in_place;
    spec.itemsize = itemsize;
    spec.ops = ops;
    for (std::size_t s = 0; s < 3; ++s) spec.boundaries[s] = bounds[s];
    spec.segment_nbytes = segment_nbytes;
    return BoundPlan::bind(spec);
  }
};

// Boundaries of `chunks` nearly equal chunks of `count` elements.
inline std::vector<std::int64_t> cut(std::int64_t count, int chunks) {
  std::vector<std::int64_t> bounds;
  for (int i = 0; i <= chunks; ++i) bounds.push_back(count * i / chunks);
  return bounds;
}

// Ring allreduce: n - 1 steps of receive-and-reduce, n - 1 of passing results on. With several channels, each has its
// own n chunks. Out of place, partial sums travel through scratch slots, so that INPUT stays as it is.
inline Program ring_allreduce(int rank, int nranks, std::int64_t count, bool in_place, int channels) {
  Program p;
  p.rank = rank;
  p.nranks = nranks;
  p.in_place = in_place;
  const int chunks = nranks * channels;
  p.pieces = chunks;
  p.bounds[kInput] = p.bounds[kOutput] = cut(count, chunks);
  p.bounds[kScratch] = {0};
  const int next = (rank + 1) % nranks;
  const int before = (rank + nranks - 1) % nranks;
  const int own = in_place ? kOutput : kInput;
  if (nranks == 1 && !in_place) p.add(OpKind::copy, -1, -1, kInput, 0, kOutput, 0, chunks);
  for (int step = 0; step < nranks - 1; ++step) {
    for (int channel = 0; channel < channels; ++channel) {
      const auto chunk = [&](int i) { return channel * nranks + (i + 2 * nranks) % nranks; };
      p.add(OpKind::send, next, channel, step == 0 ? own : kOutput, chunk(rank - step), -1, -1);
      p.add(OpKind::recv_reduce, before, channel, own, chunk(rank - step - 1), kOutput, chunk(rank - step - 1));
    }
  }
  for (int step = 0; step < nranks - 1; ++step) {
    for (int channel = 0; channel < channels; ++channel) {
      const auto chunk = [&](int i) { return channel * nranks + (i + 2 * nranks) % nranks; };
      p.add(OpKind::send, next, channel, kOutput, chunk(rank + 1 - step), -1, -1);
      p.add(OpKind::recv, before, channel, -1, -1, kOutput, chunk(rank - step));
    }
  }
  return p;
}

// Allreduce through one root and a scratch copy of everybody's data: receives into scratch, local reductions, sends.
inline Program star_allreduce(int rank, int nranks, std::int64_t count) {
  Program p;
  p.rank = rank;
  p.nranks = nranks;
  p.bounds[kInput] = p.bounds[kOutput] = {0, count};
  p.bounds[kScratch] = {0, count, 2 * count};
  if (rank == 0) {
    p.add(OpKind::copy, -1, -1, kInput, 0, kOutput, 0);
    for (int peer = 1; peer < nranks; ++peer) {
      p.add(OpKind::recv, peer, 0, -1, -1, kScratch, peer % 2);  // two slots in turn: writes wait for reads
      p.add(OpKind::reduce, -1, -1, kScratch, peer % 2, kOutput, 0);
    }
    for (int peer = 1; peer < nranks; ++peer) p.add(OpKind::send, peer, 0, kOutput, 0, -1, -1);
  } else {
    p.add(OpKind::send, 0, 0, kInput, 0, -1, -1);
    p.add(OpKind::recv, 0, 0, -1, -1, kOutput, 0);
  }
  return p;
}

inline Program alltoall(int rank, int nranks, std::int64_t block) {
  Program p;
  p.kind = Kind::alltoall;
  p.rank = rank;
  p.nranks = nranks;
  p.bounds[kInput] = p.bounds[kOutput] = cut(block * nranks, nranks);
  p.add(OpKind::copy, -1, -1, kInput, rank, kOutput, rank);
  for (int shift = 1; shift < nranks; ++shift) {
    p.add(OpKind::send, (rank + shift) % nranks, 0, kInput, (rank + shift) % nranks, -1, -1);
    const int source = (rank + nranks - shift) % nranks;
    p.add(OpKind::recv, source, 0, -1, -1, kOutput, source);
  }
  return p;
}

// Broadcast along a chain in pieces, in place, with an empty message back from everybody to the root.
inline Program chain_broadcast(int rank, int nranks, std::int64_t count, int pieces) {
  Program p;
  p.kind = Kind::broadcast;
  p.rank = rank;
  p.nranks = nranks;
  p.root = 0;
  p.pieces = pieces;
  p.in_place = true;
  p.bounds[kOutput] = cut(count, pieces);
  for (int piece = 0; piece < pieces; ++piece) {
    if (rank > 0) p.add(OpKind::recv, rank - 1, 0, -1, -1, kOutput, piece);
    if (rank + 1 < nranks) p.add(OpKind::send, rank + 1, 0, kOutput, piece, -1, -1);
  }
  for (int peer = 1; peer < nranks; ++peer) {
    if (rank == 0) p.add(OpKind::recv, peer, 1, -1, -1, -1, -1, 0);
    if (rank == peer) p.add(OpKind::send, 0, 1, -1, -1, -1, -1, 0);
  }
  return p;
}

}  // namespace pycomm::testing
