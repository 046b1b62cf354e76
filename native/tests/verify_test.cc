// The verifier's core on programs small enough to write down; whole planners are checked by tests/unit/test_verify.py.
#include "verify/verify.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

namespace pycomm::verify {
namespace {

constexpr int kIn = 0;
constexpr int kOut = 1;

Row send(int peer, int space, int start) { return {1, peer, 0, space, start, -1, -1, 1}; }
Row recv(int peer, int space, int start) { return {2, peer, 0, -1, -1, space, start, 1}; }
Row recv_reduce(int peer, int from, int to, int at) { return {4, peer, 0, from, at, to, at, 1}; }

// An allreduce of `pieces` chunks on as many ranks as there are programs; in place when nobody has INPUT.
struct Case {
  std::vector<Row> rows;
  std::vector<std::int64_t> offsets{0};
  std::vector<std::int64_t> bases{0};
  std::vector<std::int32_t> initial, wanted, source;

  Case(const std::vector<std::vector<Row>>& all, int pieces, bool in_place) {
    for (const auto& program : all) {
      rows.insert(rows.end(), program.begin(), program.end());
      offsets.push_back(static_cast<std::int64_t>(rows.size()));
      const std::int64_t inputs = in_place ? 0 : pieces;
      bases.push_back(bases.back() + inputs);
      bases.push_back(bases.back() + pieces);
      bases.push_back(bases.back());
      for (int i = 0; i < (in_place ? 1 : 2); ++i) {
        const bool is_input = in_place || i == 0;
        const bool is_output = in_place || i == 1;
        for (int chunk = 0; chunk < pieces; ++chunk) {
          initial.push_back(is_input ? chunk : -1);
          wanted.push_back(is_output ? chunk : -1);
          source.push_back(-1);
        }
      }
    }
  }

  Programs programs() const { return {rows, offsets}; }
  Memory memory() const { return {bases, initial, wanted, source}; }

  Outcome run(int capacity = 1) const {
    const Pairs pairs = match(programs());
    EXPECT_TRUE(pairs.uneven.empty());
    return verify::run(programs(), checked_matching(programs(), pairs.lane, pairs.partner), memory(), capacity, false);
  }
};

std::vector<Row> exchange(int peer) { return {send(peer, kIn, 0), recv_reduce(peer, kIn, kOut, 0)}; }

// Ring of n ranks, chunk c starts at rank c; out of place.
Case ring(int n) {
  std::vector<std::vector<Row>> all(static_cast<std::size_t>(n));
  for (int r = 0; r < n; ++r) {
    for (int t = 0; t < 2 * (n - 1); ++t) {
      const int out = ((r - t) % n + n) % n;
      const int in = ((r - t - 1) % n + n) % n;
      auto& program = all[static_cast<std::size_t>(r)];
      program.push_back(send((r + 1) % n, t == 0 ? kIn : kOut, out));
      const int before = (r + n - 1) % n;
      program.push_back(t < n - 1 ? recv_reduce(before, kIn, kOut, in) : recv(before, kOut, in));
    }
  }
  return Case(all, n, false);
}

TEST(Verify, RingIsRightAndCounted) {
  for (const int n : {2, 3, 8, 33}) {
    const Outcome outcome = ring(n).run();
    EXPECT_TRUE(outcome.findings.empty()) << n;
    EXPECT_EQ(outcome.steps, 2 * (n - 1));
    for (const Traffic& t : outcome.traffic) {
      EXPECT_EQ(t.messages_sent, 2 * (n - 1));
      EXPECT_EQ(t.chunks_received, 2 * (n - 1));
      EXPECT_EQ(t.chunks_reduced, n - 1);
    }
  }
}

TEST(Verify, WrongResultIsExplainedExactly) {
  Case c({exchange(1), {send(0, kIn, 0), recv(0, kOut, 0)}}, 1, false);
  const Outcome outcome = c.run();
  ASSERT_EQ(outcome.findings.size(), 1U);
  EXPECT_EQ(outcome.findings[0].problem, Problem::wrong_result);
  EXPECT_EQ(outcome.findings[0].rank, 1);
  EXPECT_EQ(outcome.findings[0].numbers, (std::vector<std::int64_t>{0, 0, 1}));
}

TEST(Verify, LentMemoryIsFoundOnBothSides) {
  Case c({{send(1, kOut, 0), recv_reduce(1, kOut, kOut, 0)}, {send(0, kOut, 0), recv_reduce(0, kOut, kOut, 0)}}, 1,
         true);
  const Outcome outcome = c.run();
  EXPECT_EQ(std::count_if(outcome.findings.begin(), outcome.findings.end(),
                          [](const Finding& f) { return f.problem == Problem::overwrites_lent; }),
            2);
}

TEST(Verify, DeadlockNamesTheCycle) {
  Case c({{recv_reduce(1, kIn, kOut, 0), send(1, kIn, 0)}, {recv_reduce(0, kIn, kOut, 0), send(0, kIn, 0)}}, 1, false);
  const Outcome outcome = c.run();
  ASSERT_EQ(outcome.findings.size(), 1U);
  EXPECT_EQ(outcome.findings[0].problem, Problem::deadlock);
  EXPECT_EQ(outcome.findings[0].numbers, (std::vector<std::int64_t>{0, 0, 1, 0}));
  const Pairs pairs = match(c.programs());
  EXPECT_EQ(smallest_capacity(c.programs(), checked_matching(c.programs(), pairs.lane, pairs.partner)), -1);
}

TEST(Verify, SmallestCapacityIsFound) {
  std::vector<std::vector<Row>> all(2);
  for (int r = 0; r < 2; ++r) {
    for (int i = 0; i < 5; ++i) all[static_cast<std::size_t>(r)].push_back(send(1 - r, kIn, i));
    for (int i = 0; i < 5; ++i) all[static_cast<std::size_t>(r)].push_back(recv_reduce(1 - r, kIn, kOut, i));
  }
  const Case c(all, 5, false);
  const Pairs pairs = match(c.programs());
  EXPECT_EQ(smallest_capacity(c.programs(), checked_matching(c.programs(), pairs.lane, pairs.partner)), 5);
  EXPECT_EQ(c.run(4).findings.size(), 1U);
  EXPECT_TRUE(c.run(5).findings.empty());
}

TEST(Verify, MatchingCountsWhatIsUneven) {
  const Case c({{send(1, kIn, 0), send(1, kIn, 0)}, {recv(0, kOut, 0)}}, 1, false);
  const Pairs pairs = match(c.programs());
  ASSERT_EQ(pairs.uneven.size(), 1U);
  EXPECT_EQ(pairs.uneven[0].sent, 2);
  EXPECT_EQ(pairs.uneven[0].received, 1);
  EXPECT_THROW((void)checked_matching(c.programs(), pairs.lane, pairs.partner), std::invalid_argument);
}

TEST(Verify, NothingIsReadOutsideTheArrays) {
  for (const Row bad : {send(1, kIn, 7), send(1, 9, 0), send(1, kIn, -1), send(5, kIn, 0)}) {
    EXPECT_THROW((void)Case({{bad, recv_reduce(1, kIn, kOut, 0)}, exchange(0)}, 1, false).run(), std::invalid_argument);
  }
}

}  // namespace
}  // namespace pycomm::verify
