// Symbolic values: which rank's contributions to which chunks are combined in a piece of data.
//
// A value is a node: nothing, a leaf (rank, chunk), or the sum of two nodes. Moving data moves the node's number. A
// 128-bit linear fingerprint per node decides whether two values hold the same contributions equally often: weights of
// leaves are fixed pseudo-random numbers, so two different multisets agree by accident with probability about 2^-128.
// What a wrong value holds instead is answered exactly, by walking its sums.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace pycomm::verify {

using Node = std::uint32_t;
constexpr Node kNothing = 0;

struct Contribution {
  std::int64_t rank, chunk;
  std::uint64_t count;
};

class Contributions {
 public:
  // `idempotent`: only whether a rank has contributed counts, not how often nor to which chunk.
  Contributions(int nranks, bool idempotent);

  Node leaf(int rank, int chunk);
  Node sum(Node a, Node b);

  bool is_leaf_of(Node node, int rank, int chunk) const noexcept;
  bool is_sum_of_all(Node node, int chunk);
  // Exactly what is in the node, by rank and chunk.
  std::vector<Contribution> explain(Node node) const;

 private:
  using Print = std::array<std::uint64_t, 2>;
  struct Parts {
    std::uint32_t a, b;  // nodes, or rank and chunk of a leaf
    bool leaf;
  };
  static Print weight(int rank, int chunk) noexcept;
  Node add(Parts parts, Print print);

  int nranks_;
  bool idempotent_;
  std::size_t words_;  // per node in reached_
  std::vector<Parts> parts_;
  std::vector<Print> prints_;
  std::vector<std::uint64_t> reached_;  // idempotent: bit set of ranks, node by node
  std::vector<Print> all_;              // by chunk: print of everybody's contribution
  std::vector<bool> all_known_;
};

}  // namespace pycomm::verify
