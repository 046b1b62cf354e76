// Groups of ranks that are threads of this process: order, asynchronous work, disagreement, and every way to end.
#include "group/group.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "net/context.h"
#include "programs.h"

namespace pycomm {
namespace {

using Body = std::function<void(Group&)>;
constexpr double kBound_s = 30;  // no test waits longer; one that gets here has failed

void nap(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

// A job whose ranks are threads. With `shared`, groups run flat collectives; else everything travels over TCP.
class Job {
 public:
  Job(int size, bool shared) : size_(size) {
    Result<std::unique_ptr<StoreServer>> server = StoreServer::start("127.0.0.1", 0, "secret");
    EXPECT_TRUE(server.ok()) << server.status().message();
    server_ = std::move(*server);
    contexts_.resize(static_cast<std::size_t>(size));
    each([&](int rank) {
      ContextConfig config;
      config.rank = rank;
      config.size = size;
      config.store_host = "127.0.0.1";
      config.store_port = server_->port();
      config.secret = "secret";
      config.timeout_s = kBound_s;
      config.allow_shared_memory = shared;
      Result<std::shared_ptr<Context>> context = Context::connect(config);
      ASSERT_TRUE(context.ok()) << context.status().message();
      contexts_[static_cast<std::size_t>(rank)] = *context;
    });
  }
  ~Job() {
    each([&](int rank) { contexts_[static_cast<std::size_t>(rank)].reset(); });
  }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  std::shared_ptr<Group> open(int rank, std::uint32_t id = 1) {
    GroupConfig config;
    config.id = id;
    config.name = "test";
    for (int r = 0; r < size_; ++r) config.members.push_back(r);
    config.rank = rank;
    config.timeout_s = kBound_s;
    Result<std::shared_ptr<Group>> group = Group::open(contexts_[static_cast<std::size_t>(rank)], config);
    EXPECT_TRUE(group.ok()) << group.status().message();
    return *group;
  }
  // Calls body(rank) on a thread per rank.
  void each(const std::function<void(int)>& body) {
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size_; ++rank) threads.emplace_back(body, rank);
    for (std::thread& thread : threads) thread.join();
  }
  // The same with a group each, closed at the end.
  void run(const Body& body) {
    each([&](int rank) {
      const std::shared_ptr<Group> group = open(rank);
      body(*group);
      group->close();
    });
  }

 private:
  const int size_;
  std::unique_ptr<StoreServer> server_;
  std::vector<std::shared_ptr<Context>> contexts_;
};

// An allreduce of `count` int64 elements, each rank+value; its plan is a ring where the group has no flat way.
struct Sum {
  Sum(Group& group, std::size_t count, std::int64_t value, Kind kind = Kind::allreduce)
      : size(group.size()), first(value), send(count, group.rank() + value), recv(count, -1) {
    call.desc.kind = kind;
    call.desc.dtype = DType::int64;
    call.desc.op = ReduceOp::sum;
    call.desc.root = -1;
    call.desc.count = count;
    call.send = reinterpret_cast<const std::byte*>(send.data());
    call.recv = reinterpret_cast<std::byte*>(recv.data());
    if (group.flat_ready()) return;
    call.desc.plan = 99;
    const auto program = testing::ring_allreduce(group.rank(), size, static_cast<std::int64_t>(count), false, 1);
    Result<BoundPlan> bound = program.bind(sizeof(std::int64_t));
    EXPECT_TRUE(bound.ok()) << bound.status().message();
    plan = std::make_shared<const BoundPlan>(std::move(*bound));
  }
  Status run(Group& group, double timeout_s = kBound_s) { return group.run(call, plan, timeout_s); }
  std::shared_ptr<Work> launch(Group& group, double timeout_s = kBound_s) {
    return group.launch(call, plan, timeout_s);
  }
  bool right() const {
    const std::int64_t sum = size * first + size * (size - 1) / 2;
    return std::all_of(recv.begin(), recv.end(), [sum](std::int64_t value) { return value == sum; });
  }

  int size;
  std::int64_t first;
  std::vector<std::int64_t> send;
  std::vector<std::int64_t> recv;
  FlatCall call{};
  std::shared_ptr<const BoundPlan> plan;
};

void expect_sum(Group& group, std::size_t count = 100, std::int64_t value = 7) {
  Sum sum(group, count, value);
  const Status status = sum.run(group);
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_TRUE(sum.right());
}

void expect(const Status& status, Code code, const std::vector<int>& ranks) {
  EXPECT_EQ(status.code(), code) << status.message();
  EXPECT_EQ(status.ranks(), ranks) << status.message();
}

Message receive(Group& group, int src, int tag, std::int64_t& value, double timeout_s = kBound_s,
                bool courier = false) {
  return group.recv(src, tag, &value, sizeof value, DType::int64, timeout_s, courier);
}

Message transmit(Group& group, int dst, int tag, const std::int64_t& value, bool courier = false) {
  return group.send(dst, tag, &value, sizeof value, DType::int64, kBound_s, courier);
}

// Polls until done() holds; false when that takes too long.
template <typename Done>
bool comes(const Done& done) {
  for (const Deadline deadline = Deadline::after(kBound_s); !deadline.passed(); nap(1))
    if (done()) return true;
  return false;
}

struct Way {
  int size;
  bool shared;
};
class Ways : public ::testing::TestWithParam<Way> {};
INSTANTIATE_TEST_SUITE_P(Sizes, Ways,
                         ::testing::Values(Way{1, true}, Way{2, true}, Way{3, true}, Way{4, true}, Way{1, false},
                                           Way{2, false}, Way{3, false}, Way{4, false}),
                         [](const auto& way) {
                           return std::string(way.param.shared ? "flat" : "plan") + std::to_string(way.param.size);
                         });
class Both : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Kinds, Both, ::testing::Bool(),
                         [](const auto& way) { return std::string(way.param ? "flat" : "plan"); });

TEST_P(Ways, BlockingAndLaunchedSumsAreRight) {
  Job job(GetParam().size, GetParam().shared);
  job.run([&](Group& group) {
    EXPECT_EQ(group.flat_ready(), GetParam().shared || group.size() == 1);
    for (const std::size_t count : {0u, 1u, 1000u, 100'000u}) expect_sum(group, count, 3);
    std::vector<std::unique_ptr<Sum>> sums;
    std::vector<std::shared_ptr<Work>> works;
    for (int i = 0; i < 30; ++i) {
      sums.push_back(std::make_unique<Sum>(group, static_cast<std::size_t>(50 * i), i));
      works.push_back(sums.back()->launch(group));
    }
    expect_sum(group);  // takes its turn behind them
    for (std::size_t i = 0; i < works.size(); ++i) {
      EXPECT_TRUE(works[i]->done()) << i;
      EXPECT_TRUE(group.wait(*works[i], 0).ok());
      EXPECT_TRUE(sums[i]->right()) << i;
    }
    EXPECT_EQ(group.last_seq(), 35u);
  });
}

TEST_P(Both, TwoThreadsOfARankLaunchAndBlock) {
  Job job(3, GetParam());
  job.run([](Group& group) {
    const auto body = [&group] {  // equal calls, since nothing orders the two threads
      for (int round = 0; round < 5; ++round) {
        std::vector<std::unique_ptr<Sum>> sums;
        std::vector<std::shared_ptr<Work>> works;
        for (int i = 0; i < 10; ++i) {
          sums.push_back(std::make_unique<Sum>(group, 64, 5));
          works.push_back(sums.back()->launch(group));
        }
        expect_sum(group, 64, 5);
        for (std::size_t i = 0; i < works.size(); ++i) {
          EXPECT_TRUE(group.wait(*works[i], kBound_s).ok());
          EXPECT_TRUE(sums[i]->right());
        }
      }
    };
    std::thread other(body);
    body();
    other.join();
  });
}

TEST_P(Both, TwoGroupsInOppositeOrder) {
  Job job(2, GetParam());
  job.each([&](int rank) {
    const std::shared_ptr<Group> a = job.open(rank, 1);
    const std::shared_ptr<Group> b = job.open(rank, 2);
    for (std::int64_t i = 0; i < 20; ++i) {
      Sum in_a(*a, 500, i);
      Sum in_b(*b, 20'000, -i);
      const auto first = rank == 0 ? in_a.launch(*a) : in_b.launch(*b);
      const auto second = rank == 0 ? in_b.launch(*b) : in_a.launch(*a);
      EXPECT_TRUE((rank == 0 ? *a : *b).wait(*first, kBound_s).ok());
      EXPECT_TRUE((rank == 0 ? *b : *a).wait(*second, kBound_s).ok());
      EXPECT_TRUE(in_a.right() && in_b.right());
    }
    b->close();
    expect_sum(*a);  // the other's end is none of its business
    a->close();
  });
}

TEST_P(Both, MessagesFromAnySourceAndByCourier) {
  Job job(3, GetParam());
  job.run([](Group& group) {
    const std::vector<std::int64_t> large(200'000, group.rank());
    if (group.rank() != 0) {
      EXPECT_TRUE(group.wait(transmit(group, 0, 4, group.rank()), kBound_s).ok());
      const std::int64_t value = group.rank() * 10;
      const Message small = transmit(group, 0, 5, value, true);  // nobody waits here: the courier answers the grant
      const Message big =
          group.send(0, 6, large.data(), large.size() * sizeof(std::int64_t), DType::int64, kBound_s, true);
      EXPECT_TRUE(comes([&] { return PointToPoint::done(big.request) && PointToPoint::done(small.request); }));
    } else {
      int seen = 0;
      for (int i = 0; i < 2; ++i) {
        std::int64_t value = -1;
        const Message message = receive(group, kAnySource, 4, value);
        EXPECT_TRUE(group.wait(message, kBound_s).ok());
        EXPECT_EQ(PointToPoint::source(message.request), value);
        seen += 1 << value;
      }
      EXPECT_EQ(seen, 6);
      for (int peer = 1; peer < 3; ++peer) {
        std::int64_t value = -1;
        const Message message = receive(group, peer, 5, value, kBound_s, true);
        EXPECT_TRUE(comes([&] { return PointToPoint::done(message.request); }));
        EXPECT_EQ(value, peer * 10);
        std::vector<std::int64_t> into(large.size());
        EXPECT_TRUE(group
                        .wait(group.recv(peer, 6, into.data(), into.size() * sizeof(std::int64_t), DType::int64,
                                         kBound_s, false),
                              kBound_s)
                        .ok());
        EXPECT_EQ(into, std::vector<std::int64_t>(into.size(), peer));
      }
      // The caller's patience is not the message's deadline: it goes on, and done() drives it.
      std::int64_t own = -1;
      const Message late = receive(group, 0, 8, own);
      EXPECT_EQ(group.wait(late, 0.01).code(), Code::deadline);
      const std::int64_t sent = 88;
      EXPECT_TRUE(group.wait(transmit(group, 0, 8, sent), kBound_s).ok());
      EXPECT_TRUE(comes([&] { return group.done(late); }));
      EXPECT_EQ(own, 88);
    }
  });
}

TEST_P(Both, MismatchLeavesTheGroupUsable) {
  Job job(3, GetParam());
  job.run([](Group& group) {
    for (int round = 0; round < 3; ++round) {
      Sum wrong(group, group.rank() == 1 ? 40 : 50, 1);
      const Status status = wrong.run(group);
      EXPECT_EQ(status.code(), Code::mismatch) << status.message();
      EXPECT_NE(status.message().find("count=40"), std::string::npos) << status.message();
      EXPECT_NE(status.message().find("count=50"), std::string::npos) << status.message();
      EXPECT_FALSE(group.failure().failed());
      expect_sum(group);
    }
  });
}

TEST_P(Both, AbortEndsEveryKindOfWait) {
  Job job(3, GetParam());
  job.run([](Group& group) {
    expect_sum(group);
    if (group.rank() == 0) {
      std::int64_t value = 0;
      std::thread aborter([&] {
        nap(30);
        group.abort("enough");
        group.abort("twice is fine");
      });
      const Message message = receive(group, 1, 3, value);
      expect(group.wait(message, kBound_s), Code::aborted, {0});
      EXPECT_TRUE(group.done(message));
      aborter.join();
    } else {
      Sum first(group, 10, 1);
      Sum second(group, 10, 2);
      const auto work = first.launch(group);
      expect(second.run(group), Code::aborted, {0});
      expect(group.wait(*work, kBound_s), Code::aborted, {0});
    }
    Sum after(group, 10, 1);
    expect(after.run(group), Code::aborted, {0});
    // What nobody can finish any more counts as done; waiting says why.
    std::int64_t never = 0;
    const Message lost = receive(group, (group.rank() + 1) % 3, 9, never);
    EXPECT_TRUE(group.done(lost));
    expect(group.wait(lost, kBound_s), Code::aborted, {0});
  });
}

TEST_P(Both, DeadlineNamesTheMissingRank) {
  Job job(4, GetParam());
  std::latch heard(4);  // a rank that leaves might be heard of before the deadline is
  job.run([&](Group& group) {
    expect_sum(group);
    if (group.rank() == 2) {
      EXPECT_TRUE(comes([&] { return group.failure().failed(); }));  // alive, but it does not come
    }
    Sum sum(group, 1000, 1);
    expect(sum.run(group, group.rank() == 0 ? 0.3 : 10), Code::deadline, {2});
    expect(group.failure().cause(), Code::deadline, {2});
    heard.arrive_and_wait();
  });
}

TEST(Group, ABlockingCallDoesNotOutliveItsDeadlineBehindOthers) {
  Job job(2, true);
  job.run([](Group& group) {
    if (group.rank() == 1) {
      EXPECT_TRUE(comes([&] { return group.failure().failed(); }));
      return;
    }
    Sum patient(group, 10, 1);
    Sum hasty(group, 10, 1);
    const auto work = patient.launch(group);
    EXPECT_EQ(hasty.run(group, 0.05).code(), Code::deadline);
    EXPECT_TRUE(work->done());  // nothing is left that could touch the memory
    EXPECT_EQ(work->status().code(), Code::deadline);
  });
}

TEST_P(Both, LeavingEarlyHurtsOnlyWhoNeedsTheRank) {
  Job job(3, GetParam());
  std::latch both(2);
  job.run([&both](Group& group) {
    expect_sum(group);
    std::int64_t value = 41 + group.rank();
    if (group.rank() == 2) {
      EXPECT_TRUE(group.wait(transmit(group, 0, 1, value), kBound_s).ok());
      return;
    }
    nap(100);
    EXPECT_FALSE(group.failure().failed());
    const int other = 1 - group.rank();
    std::int64_t got = 0;
    if (group.rank() == 0) {  // what it sent before it left arrives
      EXPECT_TRUE(group.wait(receive(group, 2, 1, got), kBound_s).ok());
      EXPECT_EQ(got, 43);
    }
    const Message in = receive(group, other, 2, got);
    EXPECT_TRUE(group.wait(transmit(group, other, 2, value), kBound_s).ok());
    EXPECT_TRUE(group.wait(in, kBound_s).ok());
    EXPECT_EQ(got, 41 + other);
    Sum sum(group, 10, 1);
    expect(sum.run(group), Code::peer_lost, {2});
    both.arrive_and_wait();  // else the one could hear of the other's leaving as well
  });
}

TEST(Group, WaitingForARankThatHasLeftEnds) {
  Job job(2, true);
  job.run([](Group& group) {
    if (group.rank() == 1) return;
    std::int64_t value = 0;
    expect(group.wait(receive(group, 1, 1, value), kBound_s), Code::peer_lost, {1});
  });
}

TEST_P(Both, CloseWaitsForWorkInFlightAndEndsTheGroup) {
  Job job(2, GetParam());
  job.each([&](int rank) {
    const std::shared_ptr<Group> group = job.open(rank);
    std::vector<std::unique_ptr<Sum>> sums;
    std::vector<std::shared_ptr<Work>> works;
    for (int i = 0; i < 20; ++i) {
      sums.push_back(std::make_unique<Sum>(*group, 3000, i));
      works.push_back(sums.back()->launch(*group));
    }
    std::thread other([&] { group->close(); });
    group->close();
    other.join();
    group->close();
    for (std::size_t i = 0; i < works.size(); ++i) {
      EXPECT_TRUE(works[i]->done());
      EXPECT_TRUE(group->wait(*works[i], 0).ok()) << works[i]->status().message();
      EXPECT_TRUE(sums[i]->right());
    }
    EXPECT_EQ(sums[0]->run(*group).code(), Code::usage);
    const auto refused = sums[0]->launch(*group);
    EXPECT_TRUE(refused->done());
    EXPECT_EQ(group->wait(*refused, 1).code(), Code::usage);
    std::int64_t value = 0;
    const Message message = receive(*group, 1 - rank, 1, value);
    EXPECT_TRUE(group->done(message));
    EXPECT_EQ(group->wait(message, 1).code(), Code::usage);
    group->abort("nothing is left to abort");
  });
}

// Launches, messages and aborts race with close(); none may hang, crash or be left unfinished.
TEST_P(Both, CallsThatRaceWithCloseAllEnd) {
  for (int round = 0; round < 8; ++round) {
    Job job(2, GetParam());
    job.each([&](int rank) {
      const std::shared_ptr<Group> group = job.open(rank);
      std::vector<std::thread> callers;
      for (int i = 0; i < 2; ++i) {
        callers.emplace_back([&group, i] {
          Status status;
          for (const Deadline bound = Deadline::after(kBound_s); status.code() != Code::usage && !bound.passed();) {
            Sum sum(*group, 16, 1);
            if (i == 0) {
              status = sum.run(*group);
            } else {
              const auto work = sum.launch(*group);
              status = group->wait(*work, kBound_s);
              ASSERT_TRUE(work->done());
            }
          }
          EXPECT_EQ(status.code(), Code::usage) << status.message();
        });
      }
      nap(round);
      if (rank == 0) group->abort("now");
      group->close();
      for (std::thread& caller : callers) caller.join();
    });
  }
}

}  // namespace
}  // namespace pycomm
