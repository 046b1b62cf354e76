// Runs of whole programs by ranks as threads, and once as processes.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "programs.h"
#include "world.h"

namespace pycomm::testing {
namespace {

using Floats = std::vector<float>;

ExecuteCall call_of(std::uint64_t seq, const void* input, void* output, double timeout_s = kBoundSeconds) {
  ExecuteCall call;
  call.desc.dtype = DType::float32;
  call.desc.op = ReduceOp::sum;
  call.agreement = 42;
  call.seq = seq;
  call.input = input;
  call.output = output;
  call.deadline = Deadline::after(timeout_s);
  return call;
}

// Small integers that depend on rank and position: sums are exact.
Floats data_of(int rank, std::int64_t count) {
  Floats data(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < data.size(); ++i)
    data[i] = static_cast<float>((i * 7 + static_cast<std::size_t>(rank) * 3) % 11);
  return data;
}

Floats sum_of(int nranks, std::int64_t count) {
  Floats sum(static_cast<std::size_t>(count));
  for (int rank = 0; rank < nranks; ++rank) {
    const Floats data = data_of(rank, count);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += data[i];
  }
  return sum;
}

BoundPlan bound(const Program& program, std::size_t segment_nbytes = kMaxFramePayload) {
  Result<BoundPlan> plan = program.bind(sizeof(float), segment_nbytes);
  EXPECT_TRUE(plan.ok()) << plan.status().message();
  return plan.ok() ? std::move(*plan) : BoundPlan{};
}

struct Shape {
  int nranks;
  std::int64_t count;
};

std::string shape_name(const ::testing::TestParamInfo<Shape>& info) {
  return std::to_string(info.param.nranks) + "ranks_" + std::to_string(info.param.count);
}

class ExecutorShapes : public ::testing::TestWithParam<Shape> {};

INSTANTIATE_TEST_SUITE_P(Shapes, ExecutorShapes,
                         ::testing::Values(Shape{1, 5}, Shape{2, 0}, Shape{2, 1}, Shape{2, 1'000'003 / kShrink},
                                           Shape{3, 2}, Shape{3, 100'003 / kShrink}, Shape{4, 4},
                                           Shape{4, 500'009 / kShrink}, Shape{8, 7}, Shape{8, 65'537 / kShrink}),
                         shape_name);

TEST_P(ExecutorShapes, RingAllreduce) {
  const auto [nranks, count] = GetParam();
  const Floats want = sum_of(nranks, count);
  World world(nranks);
  std::uint64_t seq = 0;
  for (const bool in_place : {false, true}) {
    for (const int channels : {1, 3}) {
      for (const std::size_t segment : {std::size_t{4096}, kMaxFramePayload}) {
        seq += 2;
        world.run([&](int rank, RankStack& stack) {
          const BoundPlan plan = bound(ring_allreduce(rank, nranks, count, in_place, channels), segment);
          const Floats original = data_of(rank, count);
          Floats input = original;
          for (std::uint64_t repeat = 0; repeat < 2; ++repeat) {
            Floats output = in_place ? input : Floats(input.size(), -1.0F);
            const Status status = stack.executor.execute(plan, call_of(seq + repeat, input.data(), output.data()));
            EXPECT_TRUE(status.ok()) << status.message();
            EXPECT_EQ(output, want) << "rank " << rank;
          }
          EXPECT_EQ(input, original);
        });
      }
    }
  }
}

TEST_P(ExecutorShapes, StarAllreduceThroughScratch) {
  const auto [nranks, count] = GetParam();
  const Floats want = sum_of(nranks, count);
  World world(nranks);
  world.run([&](int rank, RankStack& stack) {
    const BoundPlan plan = bound(star_allreduce(rank, nranks, count), 64 * 1024);
    const Floats input = data_of(rank, count);
    for (std::uint64_t seq = 1; seq < 4; ++seq) {
      Floats output(input.size());
      EXPECT_TRUE(stack.executor.execute(plan, call_of(seq, input.data(), output.data())).ok());
      EXPECT_EQ(output, want);
    }
  });
}

TEST_P(ExecutorShapes, Alltoall) {
  const auto [nranks, count] = GetParam();
  World world(nranks);
  world.run([&](int rank, RankStack& stack) {
    const BoundPlan plan = bound(alltoall(rank, nranks, count));
    const Floats input = data_of(rank, count * nranks);
    Floats want;
    for (int source = 0; source < nranks; ++source) {
      const Floats theirs = data_of(source, count * nranks);
      want.insert(want.end(), theirs.begin() + rank * count, theirs.begin() + (rank + 1) * count);
    }
    Floats output(input.size());
    EXPECT_TRUE(stack.executor.execute(plan, call_of(1, input.data(), output.data())).ok());
    EXPECT_EQ(output, want);
  });
}

TEST_P(ExecutorShapes, ChainBroadcastWithEmptyMessages) {
  const auto [nranks, count] = GetParam();
  const Floats want = data_of(0, count);
  World world(nranks);
  world.run([&](int rank, RankStack& stack) {
    const BoundPlan plan = bound(chain_broadcast(rank, nranks, count, 5));
    Floats data = rank == 0 ? want : Floats(want.size());
    EXPECT_TRUE(stack.executor.execute(plan, call_of(9, data.data(), data.data())).ok());
    EXPECT_EQ(data, want);
  });
}

TEST(Executor, RanksThatAreFarAheadAreKeptInOrder) {
  // Rank 0 only sends, so it runs through all operations before rank 1 begins the first.
  World world(2);
  constexpr std::int64_t kCount = 10'000;
  constexpr std::uint64_t kTimes = 8;
  Program push;
  push.nranks = 2;
  push.bounds[kInput] = push.bounds[kOutput] = {0, kCount};
  push.kind = Kind::broadcast;
  Program pull = push;
  pull.rank = 1;
  push.add(OpKind::send, 1, 0, kInput, 0, -1, -1);
  pull.add(OpKind::recv, 0, 0, -1, -1, kOutput, 0);
  std::atomic<bool> ahead{false};
  world.run([&](int rank, RankStack& stack) {
    const BoundPlan plan = bound(rank == 0 ? push : pull);
    while (rank == 1 && !ahead.load()) stack.progress.drive();
    for (std::uint64_t seq = 1; seq <= kTimes; ++seq) {
      const Floats input = data_of(static_cast<int>(seq), kCount);
      Floats output(input.size());
      EXPECT_TRUE(stack.executor.execute(plan, call_of(seq, input.data(), output.data())).ok());
      EXPECT_EQ(output, rank == 1 ? input : Floats(input.size()));
    }
    if (rank == 0) ahead = true;
  });
  EXPECT_EQ(world[1].mailbox.budget().used.load(), 0U);
}

TEST(Executor, AverageDividesOnceAndPremulScalesEachContribution) {
  constexpr int kRanks = 3;
  constexpr std::int64_t kCount = 1000;
  const Floats sum = sum_of(kRanks, kCount);
  World world(kRanks);
  world.run([&](int rank, RankStack& stack) {
    for (const bool in_place : {false, true}) {
      const BoundPlan plan = bound(ring_allreduce(rank, kRanks, kCount, in_place, 1));
      Floats input = data_of(rank, kCount);
      Floats output = in_place ? input : Floats(input.size());
      ExecuteCall call = call_of(in_place ? 3 : 1, input.data(), output.data());
      call.desc.op = ReduceOp::avg;
      EXPECT_TRUE(stack.executor.execute(plan, call).ok());
      for (std::size_t i = 0; i < sum.size(); ++i) ASSERT_EQ(output[i], sum[i] / kRanks);
      output = in_place ? input : Floats(input.size());
      call = call_of(in_place ? 4 : 2, input.data(), output.data());
      call.desc.op = ReduceOp::premul_sum;
      call.desc.factor = 0.5;
      EXPECT_TRUE(stack.executor.execute(plan, call).ok());
      for (std::size_t i = 0; i < sum.size(); ++i) ASSERT_EQ(output[i], sum[i] * 0.5F);
      EXPECT_EQ(input, data_of(rank, kCount));
    }
  });
}

TEST(Executor, DeadlineNamesWhoIsMissingAndLeavesMemoryAlone) {
  constexpr std::int64_t kCount = 300'000;
  World world(3);
  world.run([&](int rank, RankStack& stack) {
    const BoundPlan plan = bound(ring_allreduce(rank, 3, kCount, false, 1));
    const Floats input = data_of(rank, kCount);
    Floats output(input.size());
    if (rank == 1) return;  // never comes
    const Status status = stack.executor.execute(plan, call_of(1, input.data(), output.data(), 0.2));
    EXPECT_EQ(status.code(), Code::deadline);
    EXPECT_EQ(status.ranks(), std::vector<int>{rank == 2 ? 1 : 2}) << status.message();
  });
  // Rank 1 comes late: what it sends must not reach the others' buffers, whose operation has ended.
  Floats input = data_of(1, kCount);
  Floats output(input.size());
  const BoundPlan plan = bound(ring_allreduce(1, 3, kCount, false, 1));
  EXPECT_EQ(world[1].executor.execute(plan, call_of(1, input.data(), output.data(), 0.2)).code(), Code::deadline);
  const Floats untouched = output;
  for (int i = 0; i < 100; ++i)
    for (int rank = 0; rank < 3; ++rank) world[rank].progress.drive();
  EXPECT_EQ(output, untouched);
  EXPECT_EQ(world[2].mailbox.budget().used.load(), 0U);
}

TEST(Executor, FailureEndsASleepingRank) {
  World world(2);
  const BoundPlan plan = bound(ring_allreduce(0, 2, 1000, true, 1));
  Floats data = data_of(0, 1000);
  std::thread killer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    world[0].fail(Status(Code::peer_lost, "rank 1 is gone", {1}));
  });
  const Status status = world[0].executor.execute(plan, call_of(1, data.data(), data.data()));
  killer.join();
  EXPECT_EQ(status.code(), Code::peer_lost);
  EXPECT_EQ(status.ranks(), std::vector<int>{1});
}

TEST(Executor, DisagreementEndsOneOperationOnAllRanks) {
  constexpr int kRanks = 3;
  constexpr std::int64_t kCount = 200'000;
  World world(kRanks);
  // As the group does: whoever finds it tells everybody.
  for (int rank = 0; rank < kRanks; ++rank)
    world[rank].listener.tell = [&](int, std::uint64_t seq, std::uint64_t, std::uint64_t) {
      for (int r = 0; r < kRanks; ++r) world[r].mailbox.poison(seq, Status(Code::mismatch, "both sides"));
    };
  const Floats want = sum_of(kRanks, kCount);
  world.run([&](int rank, RankStack& stack) {
    const BoundPlan plan = bound(ring_allreduce(rank, kRanks, kCount, false, 1));
    const Floats input = data_of(rank, kCount);
    for (std::uint64_t seq = 1; seq <= 6; ++seq) {
      Floats output(input.size());
      ExecuteCall call = call_of(seq, input.data(), output.data());
      const bool differ = seq % 2 == 0;
      if (differ && rank == static_cast<int>(seq / 2) - 1) call.agreement = 43;
      const Status status = stack.executor.execute(plan, call);
      if (differ) {
        EXPECT_EQ(status.code(), Code::mismatch) << "operation " << seq << ": " << status.message();
        EXPECT_EQ(status.message(), "both sides");
      } else {
        EXPECT_TRUE(status.ok()) << status.message();
        EXPECT_EQ(output, want);
      }
    }
  });
}

TEST(Executor, DisagreementThatNobodyExplainsIsStillReported) {
  World world(2);
  world.run([&](int rank, RankStack& stack) {
    const BoundPlan plan = bound(ring_allreduce(rank, 2, 10, true, 1));
    Floats data = data_of(rank, 10);
    ExecuteCall call = call_of(1, data.data(), data.data());
    call.agreement = static_cast<std::uint64_t>(rank) + 1;
    const Status status = stack.executor.execute(plan, call);
    EXPECT_EQ(status.code(), Code::mismatch);
    EXPECT_NE(status.message().find("0000000000000001"), std::string::npos);
    EXPECT_NE(status.message().find("0000000000000002"), std::string::npos);
  });
}

TEST(Executor, RefusesWhatCannotBe) {
  World world(2);
  float value = 0;
  const BoundPlan plan = bound(ring_allreduce(0, 2, 1, true, 1));
  ExecuteCall call = call_of(1, &value, &value);
  call.desc.dtype = DType::float64;
  EXPECT_EQ(world[0].executor.execute(plan, call).code(), Code::usage);
  call.desc.dtype = DType::float32;
  EXPECT_EQ(world[1].executor.execute(plan, call).code(), Code::usage);
  call.desc.op = ReduceOp::bxor;
  EXPECT_EQ(world[0].executor.execute(plan, call).code(), Code::unsupported);
}

TEST(Plan, RefusesRowsThatMakeNoSense) {
  const auto code = [](int kind, int peer, int channel, int src_space, int src, int dst_space, int dst, int count) {
    Program p;
    p.nranks = 2;
    p.bounds[kInput] = p.bounds[kOutput] = {0, 4, 9};
    p.add(static_cast<OpKind>(kind), peer, channel, src_space, src, dst_space, dst, count);
    return p.bind(4).status().code();
  };
  EXPECT_EQ(code(1, 1, 0, 0, 0, -1, -1, 2), Code::ok);
  EXPECT_EQ(code(9, 1, 0, 0, 0, 1, 0, 1), Code::usage);     // kind
  EXPECT_EQ(code(1, 0, 0, 0, 0, -1, -1, 1), Code::usage);   // to itself
  EXPECT_EQ(code(1, 2, 0, 0, 0, -1, -1, 1), Code::usage);   // peer
  EXPECT_EQ(code(1, 1, -1, 0, 0, -1, -1, 1), Code::usage);  // channel
  EXPECT_EQ(code(1, 1, 0, 3, 0, -1, -1, 1), Code::usage);   // space
  EXPECT_EQ(code(1, 1, 0, 0, 1, -1, -1, 2), Code::usage);   // past the end
  EXPECT_EQ(code(0, -1, -1, 1, 0, 0, 0, 1), Code::usage);   // writes INPUT
  EXPECT_EQ(code(0, -1, -1, 0, 0, 1, 1, 1), Code::usage);   // sizes differ
}

TEST(Plan, WaitsOnlyForOverlappingBytes) {
  Program p;
  p.nranks = 2;
  p.bounds[kInput] = {0, 1024};
  p.bounds[kOutput] = {0, 512, 1024};
  p.add(OpKind::recv, 1, 0, -1, -1, kOutput, 0, 2);        // nodes 0..3, 1 KiB each
  p.add(OpKind::send, 1, 0, kOutput, 1, -1, -1, 1);        // nodes 4, 5: read what 2, 3 wrote
  p.add(OpKind::recv, 1, 0, -1, -1, kOutput, 1, 1);        // nodes 6, 7: after 4, 5 have been copied out
  p.add(OpKind::copy, -1, -1, kOutput, 0, kOutput, 1, 1);  // nodes 8, 9: read 0, 1 and overwrite 6, 7
  const BoundPlan plan = bound(p, 1024);
  ASSERT_EQ(plan.nodes(), 10U);
  EXPECT_EQ(plan.waits_for, (std::vector<std::uint32_t>{0, 0, 0, 0, 1, 1, 2, 2, 2, 2}));
}

TEST(Executor, RunsBetweenProcesses) {
  constexpr int kRanks = 2;
  constexpr std::int64_t kCount = 700'001 / kShrink;
  const std::size_t nbytes = sizeof(RegionHeader) + ((shm_area_size(kRanks) + 4095) & ~std::size_t{4095});
  Regions regions;
  regions.nbytes = nbytes;
  for (int rank = 0; rank < kRanks; ++rank) {
    void* const memory = mmap(nullptr, nbytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    regions.base.push_back(static_cast<std::byte*>(memory));
  }
  const auto body = [&](int rank) {
    RankStack stack(regions, rank, std::size_t{1} << 30);
    const BoundPlan plan = bound(ring_allreduce(rank, kRanks, kCount, false, 2));
    const Floats input = data_of(rank, kCount);
    const Floats want = sum_of(kRanks, kCount);
    for (std::uint64_t seq = 1; seq <= 10; ++seq) {
      Floats output(input.size());
      const Status status = stack.executor.execute(plan, call_of(seq, input.data(), output.data()));
      if (!status.ok() || output != want) return false;
    }
    return true;
  };
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(body(1) ? 0 : 1);
  EXPECT_TRUE(body(0));
  int state = 0;
  ASSERT_EQ(waitpid(child, &state, 0), child);
  EXPECT_TRUE(WIFEXITED(state) && WEXITSTATUS(state) == 0);
  for (std::byte* base : regions.base) munmap(base, nbytes);
}

}  // namespace
}  // namespace pycomm::testing
