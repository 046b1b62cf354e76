// Matching of point-to-point messages, and what the mailbox does with frames that nobody expects.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "programs.h"
#include "world.h"

namespace pycomm::testing {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes pattern(std::size_t nbytes, int salt) {
  Bytes data(nbytes);
  for (std::size_t i = 0; i < nbytes; ++i)
    data[i] = static_cast<std::uint8_t>((i * 31 + static_cast<std::size_t>(salt)) % 251);
  return data;
}

Deadline soon(double seconds = kBoundSeconds) { return Deadline::after(seconds); }

Request send(RankStack& stack, int dst, int tag, const Bytes& data) {
  return stack.p2p.post_send(dst, tag, data.data(), data.size(), DType::uint8);
}
Request recv(RankStack& stack, int src, int tag, Bytes& data) {
  return stack.p2p.post_recv(src, tag, data.data(), data.size(), DType::uint8);
}

class Messages : public ::testing::TestWithParam<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(Sizes, Messages,
                         ::testing::Values(0, 1, 4096, kEagerLimit, kEagerLimit + 1, std::size_t{3'000'001}));

TEST_P(Messages, ArriveWhetherExpectedOrNot) {
  const Bytes data = pattern(GetParam(), 3);
  World world(2);
  world.run([&](int rank, RankStack& stack) {
    for (const bool early : {true, false}) {
      Bytes out(data.size());
      if (rank == 0) {
        // An early receiver is there first; a late one finds the message waiting.
        if (early) std::this_thread::sleep_for(std::chrono::milliseconds(5));
        EXPECT_TRUE(stack.p2p.wait(send(stack, 1, 8, data), soon()).ok());
      } else {
        if (!early) {
          const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(5);
          while (std::chrono::steady_clock::now() < until) stack.p2p.progress();
        }
        const Request request = recv(stack, 0, 8, out);
        EXPECT_TRUE(stack.p2p.wait(request, soon()).ok());
        EXPECT_EQ(PointToPoint::source(request), 0);
        EXPECT_EQ(out, data);
      }
    }
    EXPECT_EQ(stack.p2p.pending(), 0U);
    EXPECT_EQ(stack.mailbox.budget().used.load(), 0U);
  });
}

TEST_P(Messages, ReachTheSenderItself) {
  const Bytes data = pattern(GetParam(), 4);
  World world(1);
  for (const bool receive_first : {true, false}) {
    Bytes out(data.size());
    Request request = receive_first ? recv(world[0], kAnySource, 1, out) : nullptr;
    const Request sending = send(world[0], 0, 1, data);
    if (!receive_first) request = recv(world[0], 0, 1, out);
    EXPECT_TRUE(world[0].p2p.wait(request, soon()).ok());
    EXPECT_TRUE(world[0].p2p.wait(sending, soon()).ok());
    EXPECT_EQ(out, data);
    EXPECT_EQ(PointToPoint::source(request), 0);
  }
}

TEST(PointToPoint, TagsMayBeReceivedInAnyOrder) {
  constexpr int kTags = 20;
  World world(2);
  world.run([&](int rank, RankStack& stack) {
    std::vector<Bytes> data;
    std::vector<Request> requests;
    for (int tag = 0; tag < kTags; ++tag)
      data.push_back(rank == 0 ? pattern(static_cast<std::size_t>(tag) * 9'000, tag)
                               : Bytes(static_cast<std::size_t>(kTags - 1 - tag) * 9'000));
    for (int i = 0; i < kTags; ++i) {
      Bytes& bytes = data[static_cast<std::size_t>(i)];
      requests.push_back(rank == 0 ? send(stack, 1, i, bytes) : recv(stack, 0, kTags - 1 - i, bytes));
    }
    for (const Request& request : requests) EXPECT_TRUE(stack.p2p.wait(request, soon()).ok());
    for (int i = 0; rank == 1 && i < kTags; ++i) {
      const int tag = kTags - 1 - i;
      EXPECT_EQ(data[static_cast<std::size_t>(i)], pattern(static_cast<std::size_t>(tag) * 9'000, tag));
    }
  });
}

TEST(PointToPoint, MessagesOfOneTagDoNotOvertake) {
  // Short and long ones alternate: eager data must not pass an announcement.
  const std::vector<std::size_t> sizes = {10, 200'000, 20, 100'000, 0, 30};
  World world(2);
  world.run([&](int rank, RankStack& stack) {
    std::vector<Bytes> data;
    for (std::size_t i = 0; i < sizes.size(); ++i)
      data.push_back(rank == 0 ? pattern(sizes[i], static_cast<int>(i)) : Bytes(sizes[i]));
    std::vector<Request> requests;
    for (Bytes& bytes : data) requests.push_back(rank == 0 ? send(stack, 1, 5, bytes) : recv(stack, 0, 5, bytes));
    for (const Request& request : requests) EXPECT_TRUE(stack.p2p.wait(request, soon()).ok());
    for (std::size_t i = 0; i < sizes.size(); ++i) EXPECT_EQ(data[i], pattern(sizes[i], static_cast<int>(i)));
  });
}

TEST(PointToPoint, AnySourceReportsWhoSent) {
  constexpr int kRanks = 5;
  World world(kRanks);
  world.run([&](int rank, RankStack& stack) {
    if (rank != 0) {
      for (const std::size_t nbytes : {std::size_t{100}, std::size_t{70'000}})
        EXPECT_TRUE(stack.p2p.wait(send(stack, 0, static_cast<int>(nbytes), pattern(nbytes, rank)), soon()).ok());
      return;
    }
    for (const std::size_t nbytes : {std::size_t{100}, std::size_t{70'000}}) {
      std::vector<int> sources;
      for (int i = 1; i < kRanks; ++i) {
        Bytes out(nbytes);
        const Request request = recv(stack, kAnySource, static_cast<int>(nbytes), out);
        EXPECT_TRUE(stack.p2p.wait(request, soon()).ok());
        sources.push_back(PointToPoint::source(request));
        EXPECT_EQ(out, pattern(nbytes, sources.back()));
      }
      std::sort(sources.begin(), sources.end());
      EXPECT_EQ(sources, (std::vector<int>{1, 2, 3, 4}));
    }
  });
}

TEST(PointToPoint, TwoRanksMaySendALotToEachOtherAtOnce) {
  constexpr std::size_t kNbytes = (std::size_t{64} << 20) / kShrink;
  World world(2);
  world.run([&](int rank, RankStack& stack) {
    const Bytes data = pattern(kNbytes, rank);
    Bytes out(kNbytes);
    const Request sending = send(stack, 1 - rank, 0, data);
    EXPECT_LT(stack.mailbox.budget().used.load(), 1'000'000U);
    const Request receiving = recv(stack, 1 - rank, 0, out);
    EXPECT_TRUE(stack.p2p.wait(sending, soon()).ok());
    EXPECT_TRUE(stack.p2p.wait(receiving, soon()).ok());
    EXPECT_TRUE(out == pattern(kNbytes, 1 - rank));
  });
}

TEST(PointToPoint, DifferentSizesEndInMismatchAndTheGroupGoesOn) {
  World world(2);
  for (const std::size_t nbytes : {std::size_t{100}, std::size_t{100'000}}) {
    for (const bool receive_first : {true, false}) {
      world.run([&](int rank, RankStack& stack) {
        const Bytes data = pattern(nbytes, 1);
        if (rank == 0) {
          if (receive_first) std::this_thread::sleep_for(std::chrono::milliseconds(5));
          const Status status = stack.p2p.wait(send(stack, 1, 2, data), soon());
          EXPECT_EQ(status.code(), nbytes > kEagerLimit ? Code::mismatch : Code::ok) << status.message();
          EXPECT_TRUE(stack.p2p.wait(send(stack, 1, 2, data), soon()).ok());
        } else {
          if (!receive_first) std::this_thread::sleep_for(std::chrono::milliseconds(5));
          Bytes small(nbytes - 1, 9);
          const Status status = stack.p2p.wait(recv(stack, 0, 2, small), soon());
          EXPECT_EQ(status.code(), Code::mismatch) << status.message();
          EXPECT_NE(status.message().find(std::to_string(nbytes - 1)), std::string::npos) << status.message();
          EXPECT_EQ(small, Bytes(nbytes - 1, 9));
          Bytes out(nbytes);
          EXPECT_TRUE(stack.p2p.wait(recv(stack, 0, 2, out), soon()).ok());
          EXPECT_EQ(out, data);
        }
      });
    }
  }
}

TEST(PointToPoint, DifferentDtypesEndInMismatch) {
  World world(1);
  float value = 0;
  const Request sending = world[0].p2p.post_send(0, 0, &value, sizeof value, DType::float32);
  const Request receiving = world[0].p2p.post_recv(0, 0, &value, sizeof value, DType::int32);
  for (const Request& request : {sending, receiving}) {
    const Status status = world[0].p2p.wait(request, soon());
    EXPECT_EQ(status.code(), Code::mismatch);
    EXPECT_NE(status.message().find("float32"), std::string::npos);
    EXPECT_NE(status.message().find("int32"), std::string::npos);
  }
}

TEST(PointToPoint, DeadlineCancelsAndLateDataTouchesNothing) {
  for (const std::size_t nbytes : {std::size_t{1000}, std::size_t{500'000}}) {
    World world(2);
    Bytes out(nbytes, 7);
    const Status status = world[1].p2p.wait(recv(world[1], 0, 3, out), soon(0.05));
    EXPECT_EQ(status.code(), Code::deadline);
    EXPECT_EQ(status.ranks(), std::vector<int>{0});
    const Bytes data = pattern(nbytes, 1);
    const Request sending = send(world[0], 1, 3, data);
    for (int i = 0; i < 50; ++i) {
      world[0].p2p.progress();
      world[1].p2p.progress();
    }
    EXPECT_EQ(out, Bytes(nbytes, 7));
    world[0].p2p.cancel(sending, Status(Code::aborted, "over"));
    EXPECT_TRUE(PointToPoint::done(sending));
    EXPECT_EQ(world[0].p2p.pending(), 0U);
  }
}

TEST(PointToPoint, CancelledInTheMiddleLeavesMemoryAlone) {
  constexpr std::size_t kNbytes = 8'000'000;
  World world(2);
  const Bytes data = pattern(kNbytes, 1);
  Bytes out(kNbytes, 7);
  const Request sending = send(world[0], 1, 0, data);
  const Request receiving = recv(world[1], 0, 0, out);
  while (out[kNbytes / 2] == 7) {
    world[0].p2p.progress();
    world[1].p2p.progress();
  }
  world[1].p2p.cancel(receiving, Status(Code::aborted, "over"));
  const Bytes frozen = out;
  for (int i = 0; i < 200; ++i) {
    world[0].p2p.progress();
    world[1].p2p.progress();
  }
  EXPECT_TRUE(out == frozen);
  EXPECT_TRUE(PointToPoint::done(sending));
  EXPECT_EQ(PointToPoint::status(receiving).code(), Code::aborted);
}

TEST(PointToPoint, FailureEndsEveryWaiter) {
  World world(2);
  std::vector<std::thread> waiters;
  std::vector<Bytes> out(4, Bytes(16));
  for (int i = 0; i < 4; ++i)
    waiters.emplace_back([&, i] {
      const Request request = recv(world[1], 0, i, out[static_cast<std::size_t>(i)]);
      EXPECT_EQ(world[1].p2p.wait(request, soon()).code(), Code::aborted);
    });
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  world[1].fail(Status(Code::aborted, "enough"));
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_EQ(world[1].p2p.pending(), 0U);
}

TEST(PointToPoint, ManyThreadsWaitAtOnce) {
  constexpr int kThreads = 6;
  constexpr int kTimes = 50 / (kShrink > 1 ? 2 : 1);
  World world(2);
  world.run([&](int rank, RankStack& stack) {
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t)
      threads.emplace_back([&, t] {
        for (int i = 0; i < kTimes; ++i) {
          const std::size_t nbytes = static_cast<std::size_t>(i) * 3'000;
          const Bytes data = pattern(nbytes, t + rank);
          Bytes out(nbytes);
          const Request sending = send(stack, 1 - rank, t, data);
          const Request receiving = recv(stack, 1 - rank, t, out);
          EXPECT_TRUE(stack.p2p.wait(receiving, soon()).ok());
          EXPECT_TRUE(stack.p2p.wait(sending, soon()).ok());
          EXPECT_EQ(out, pattern(nbytes, t + 1 - rank));
        }
      });
    for (std::thread& thread : threads) thread.join();
  });
}

TEST(PointToPoint, RunsBesideCollectives) {
  World world(2);
  world.run([&](int rank, RankStack& stack) {
    std::thread messages([&] {
      for (int i = 0; i < 60; ++i) {
        const Bytes data = pattern(80'000, i + rank);
        Bytes out(data.size());
        const Request sending = send(stack, 1 - rank, i, data);
        EXPECT_TRUE(stack.p2p.wait(recv(stack, 1 - rank, i, out), soon()).ok());
        EXPECT_TRUE(stack.p2p.wait(sending, soon()).ok());
        EXPECT_EQ(out, pattern(80'000, i + 1 - rank));
      }
    });
    Result<BoundPlan> plan = alltoall(rank, 2, 50'000).bind(4);
    for (std::uint64_t seq = 1; seq <= 60; ++seq) {
      std::vector<std::int32_t> input(100'000, rank + static_cast<int>(seq));
      std::vector<std::int32_t> output(100'000);
      ExecuteCall call;
      call.desc.dtype = DType::float32;
      call.seq = seq;
      call.input = input.data();
      call.output = output.data();
      call.deadline = soon();
      EXPECT_TRUE(stack.executor.execute(*plan, call).ok());
      EXPECT_EQ(output.front(), static_cast<int>(seq));
      EXPECT_EQ(output.back(), static_cast<int>(seq) + 1);
    }
    messages.join();
  });
}

// ------------------------------------------------------------------------------------------- the mailbox by itself

FrameHeader header_of(FrameType type, std::uint64_t seq, std::uint64_t nbytes) {
  FrameHeader header{};
  header.magic = kFrameMagic;
  header.type = type;
  header.dtype = DType::float32;
  header.channel = type == FrameType::schedule ? 0 : kEnvelopeChannel;
  header.group = 7;
  header.src = 1;
  header.seq = seq;
  header.agreement = 42;
  header.nbytes = nbytes;
  header.total = nbytes;
  return header;
}

// Delivers one frame as a transport would.
void deliver(Mailbox& mailbox, const FrameHeader& header, const Bytes& payload) {
  const Landing landing = mailbox.landing(1, header);
  if (landing.dst != nullptr) std::memcpy(landing.dst, payload.data(), payload.size());
  mailbox.landed(1, header, landing);
}

TEST(Mailbox, EarlyMessagesAreBounded) {
  World world(2, 100'000);
  const Bytes payload(40'000);
  deliver(world[0].mailbox, header_of(FrameType::schedule, 5, payload.size()), payload);
  deliver(world[0].mailbox, header_of(FrameType::eager, 1, payload.size()), payload);
  EXPECT_FALSE(world[0].failure.failed());
  deliver(world[0].mailbox, header_of(FrameType::schedule, 6, payload.size()), payload);
  ASSERT_TRUE(world[0].failure.failed());
  EXPECT_EQ(world[0].failure.cause().code(), Code::resource);
}

TEST(Mailbox, MalformedFramesFailTheGroup) {
  const auto fails = [](auto&& spoil) {
    World world(2);
    FrameHeader header = header_of(FrameType::schedule, 1, 8);
    spoil(header);
    deliver(world[0].mailbox, header, Bytes(8));
    return world[0].failure.failed() && world[0].failure.cause().code() == Code::protocol;
  };
  EXPECT_FALSE(fails([](FrameHeader&) {}));
  EXPECT_TRUE(fails([](FrameHeader& h) { h.magic = 1; }));
  EXPECT_TRUE(fails([](FrameHeader& h) { h.group = 8; }));
  EXPECT_TRUE(fails([](FrameHeader& h) { h.src = 0; }));
  EXPECT_TRUE(fails([](FrameHeader& h) { h.nbytes = h.total = kMaxFramePayload + 1; }));
  EXPECT_TRUE(fails([](FrameHeader& h) { h.offset = 1; }));
  EXPECT_TRUE(fails([](FrameHeader& h) { h.offset = ~std::uint64_t{0}; }));
  EXPECT_TRUE(fails([](FrameHeader& h) { h.type = static_cast<FrameType>(77); }));
  EXPECT_TRUE(fails([](FrameHeader& h) { h.dtype = static_cast<DType>(99); }));
  EXPECT_TRUE(fails([](FrameHeader& h) {
    h.type = FrameType::eager;
    h.total = kEagerLimit + 1;
  }));
}

TEST(Mailbox, PoisonReachesAnOperationThatHasNotBegun) {
  World world(2);
  std::vector<float> data(4);
  const auto run = [&](std::uint64_t seq) {
    Program alone;  // nothing to do: ends at once unless poisoned
    alone.nranks = 2;
    alone.bounds[kInput] = alone.bounds[kOutput] = {0, 4};
    Result<BoundPlan> plan = alone.bind(4);
    ExecuteCall call;
    call.desc.dtype = DType::float32;
    call.seq = seq;
    call.input = call.output = data.data();
    call.deadline = soon();
    return world[0].executor.execute(*plan, call).code();
  };
  deliver(world[0].mailbox, header_of(FrameType::schedule, 2, 16), Bytes(16));
  world[0].mailbox.poison(2, Status(Code::mismatch, "told"));
  world[0].mailbox.poison(2, Status(Code::internal, "too late"));
  EXPECT_EQ(run(1), Code::ok);
  world[0].mailbox.poison(1, Status(Code::mismatch, "over"));
  EXPECT_EQ(run(2), Code::mismatch);
  EXPECT_EQ(run(3), Code::ok);
  EXPECT_EQ(world[0].mailbox.budget().used.load(), 0U);
}

TEST(Mailbox, AMessageThatThePlanDoesNotKnowFailsTheGroup) {
  for (const bool early : {true, false}) {
    World world(2);
    std::vector<float> data(4);
    Program one;
    one.nranks = 2;
    one.bounds[kOutput] = {0, 4};
    one.add(OpKind::recv, 1, 0, -1, -1, kOutput, 0);
    Result<BoundPlan> plan = one.bind(4);
    ExecuteCall call;
    call.desc.dtype = DType::float32;
    call.agreement = 42;
    call.seq = 1;
    call.output = data.data();
    call.deadline = soon();
    const FrameHeader wrong = header_of(FrameType::schedule, 1, 12);  // the plan expects 16 bytes
    if (early) deliver(world[0].mailbox, wrong, Bytes(12));
    std::thread peer([&] {
      if (early) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      deliver(world[0].mailbox, wrong, Bytes(12));
    });
    EXPECT_EQ(world[0].executor.execute(*plan, call).code(), Code::protocol);
    peer.join();
    EXPECT_EQ(world[0].mailbox.budget().used.load(), 0U);
  }
}

TEST(Mailbox, AnOperationThatEndsWaitsForAPayloadBeingWritten) {
  World world(2);
  std::vector<float> data(4);
  Program one;
  one.nranks = 2;
  one.bounds[kOutput] = {0, 4};
  one.add(OpKind::recv, 1, 0, -1, -1, kOutput, 0);
  Result<BoundPlan> plan = one.bind(4);
  ExecuteCall call;
  call.desc.dtype = DType::float32;
  call.agreement = 42;
  call.seq = 1;
  call.output = data.data();
  call.deadline = soon(0.1);
  std::atomic<bool> written{false};
  std::thread reactor([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const FrameHeader header = header_of(FrameType::schedule, 1, 16);
    const Landing landing = world[0].mailbox.landing(1, header);
    std::this_thread::sleep_for(std::chrono::milliseconds(150));  // the deadline passes meanwhile
    written = true;
    world[0].mailbox.landed(1, header, landing);
  });
  EXPECT_EQ(world[0].executor.execute(*plan, call).code(), Code::deadline);
  EXPECT_TRUE(written.load());
  reactor.join();
}

TEST(Mailbox, MemoryIsTakenBackFromATransportThatStoppedHalfWay) {
  World world(2);
  std::vector<float> data(4, 1.0F);
  Program one;
  one.nranks = 2;
  one.bounds[kOutput] = {0, 4};
  one.add(OpKind::recv, 1, 0, -1, -1, kOutput, 0);
  Result<BoundPlan> plan = one.bind(4);
  ExecuteCall call;
  call.desc.dtype = DType::float32;
  call.agreement = 42;
  call.seq = 1;
  call.output = data.data();
  call.deadline = soon(0.3);
  Mailbox& mailbox = world[0].mailbox;
  const FrameHeader header = header_of(FrameType::schedule, 1, 16);
  Landing landing;
  std::thread reactor([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    landing = mailbox.landing(1, header);
    mailbox.parked(1, header, landing);
    EXPECT_TRUE(mailbox.resumed(1, header, landing));
    mailbox.parked(1, header, landing);
  });
  EXPECT_EQ(world[0].executor.execute(*plan, call).code(), Code::deadline);
  reactor.join();
  EXPECT_EQ(landing.dst, data.data());
  EXPECT_FALSE(mailbox.resumed(1, header, landing));
  mailbox.landed(1, header, landing);

  // The same for a message whose receive is cancelled.
  const Request request = world[0].p2p.post_recv(1, 0, data.data(), 16, DType::float32);
  const FrameHeader eager = header_of(FrameType::eager, 1, 16);
  landing = mailbox.landing(1, eager);
  EXPECT_EQ(landing.dst, data.data());
  mailbox.parked(1, eager, landing);
  world[0].p2p.cancel(request, Status(Code::aborted, "over"));
  EXPECT_FALSE(mailbox.resumed(1, eager, landing));
  mailbox.landed(1, eager, landing);
  EXPECT_EQ(data, std::vector<float>(4, 1.0F));
}

}  // namespace
}  // namespace pycomm::testing
