// Contexts of several ranks: bootstrap, control messages, shared regions, and every way in which a peer can go.
#include "net/context.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/socket.h"

namespace pycomm {
namespace {

Deadline soon(double seconds = 20.0) { return Deadline::after(seconds); }

std::unique_ptr<StoreServer> serve(const std::string& host = "127.0.0.1") {
  Result<std::unique_ptr<StoreServer>> server = StoreServer::start(host, 0, "secret");
  EXPECT_TRUE(server.ok()) << server.status().message();
  return std::move(*server);
}

ContextConfig config_for(int rank, int size, const StoreServer& server) {
  ContextConfig config;
  config.rank = rank;
  config.size = size;
  config.store_host = "127.0.0.1";
  config.store_port = server.port();
  config.secret = "secret";
  config.timeout_s = 20;
  return config;
}

// All ranks of a job as threads of this process; null where connecting failed.
std::vector<std::shared_ptr<Context>> meet(int size, const StoreServer& server,
                                           const std::function<void(ContextConfig&)>& adjust = nullptr) {
  std::vector<std::shared_ptr<Context>> contexts(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      ContextConfig config = config_for(rank, size, server);
      if (adjust) adjust(config);
      Result<std::shared_ptr<Context>> context = Context::connect(config);
      EXPECT_TRUE(context.ok()) << "rank " << rank << ": " << context.status().message();
      if (context.ok()) contexts[static_cast<std::size_t>(rank)] = *context;
    });
  }
  for (std::thread& thread : threads) thread.join();
  return contexts;
}

void leave(std::vector<std::shared_ptr<Context>>& contexts) {
  std::vector<std::thread> threads;
  for (auto& context : contexts) threads.emplace_back([&context] { context.reset(); });
  for (std::thread& thread : threads) thread.join();
}

// Writes down what it hears.
class Diary : public Context::GroupListener {
 public:
  void on_peer_lost(int rank, const std::string& why) override { note("lost " + std::to_string(rank) + ": " + why); }
  void on_peer_left(int rank) override { note("left " + std::to_string(rank)); }
  void on_control(int rank, const ControlMessage& message) override {
    note("from " + std::to_string(rank) + ": " + std::to_string(message.seq) + " " + message.payload);
  }
  // True when a note that begins so comes in time.
  bool has(const std::string& beginning, double seconds = 20) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::duration<double>(seconds), [&] {
      for (const std::string& line : notes_)
        if (line.rfind(beginning, 0) == 0) return true;
      return false;
    });
  }
  std::vector<std::string> notes() {
    const std::lock_guard lock(mutex_);
    return notes_;
  }

 private:
  void note(std::string text) {
    const std::lock_guard lock(mutex_);
    notes_.push_back(std::move(text));
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> notes_;
};

std::vector<int> all(int size) {
  std::vector<int> ranks;
  for (int rank = 0; rank < size; ++rank) ranks.push_back(rank);
  return ranks;
}

ControlMessage say(std::uint32_t group, std::uint64_t seq, const std::string& text) {
  ControlMessage message;
  message.group = group;
  message.seq = seq;
  message.payload = text;
  return message;
}

TEST(Context, OneRank) {
  const auto server = serve();
  auto contexts = meet(1, *server);
  ASSERT_NE(contexts[0], nullptr);
  EXPECT_EQ(contexts[0]->size(), 1);
  EXPECT_TRUE(contexts[0]->same_host(0));
}

TEST(Context, RanksOfOneHostFindEachOther) {
  const auto server = serve();
  auto contexts = meet(4, *server);
  for (const auto& context : contexts) {
    ASSERT_NE(context, nullptr);
    for (int peer = 0; peer < 4; ++peer) EXPECT_TRUE(context->same_host(peer));
  }
  leave(contexts);
}

TEST(Context, WithoutSharedMemoryAllAreStrangers) {
  const auto server = serve();
  auto contexts = meet(3, *server, [](ContextConfig& config) { config.allow_shared_memory = config.rank != 1; });
  EXPECT_TRUE(contexts[0]->same_host(2));
  EXPECT_FALSE(contexts[0]->same_host(1));
  EXPECT_FALSE(contexts[1]->same_host(2));
  leave(contexts);
}

TEST(Context, ManyRanksMeetInSeconds) {
  const auto server = serve();
  auto contexts = meet(24, *server);
  leave(contexts);
}

TEST(Context, IPv6AndInterfaceByName) {
  const auto server = serve("::1");
  auto contexts = meet(2, *server, [](ContextConfig& config) {
    config.store_host = "::1";
    config.interface = "lo";
    config.family = 6;
    config.allow_shared_memory = false;
  });
  ASSERT_NE(contexts[1], nullptr);
  EXPECT_EQ(contexts[1]->store().local().family(), AF_INET6);
  leave(contexts);
}

TEST(Context, UnknownInterfaceIsToldWithTheKnownOnes) {
  const auto server = serve();
  ContextConfig config = config_for(0, 1, *server);
  config.interface = "nonesuch0";
  const auto context = Context::connect(config);
  EXPECT_EQ(context.status().code(), Code::usage);
  EXPECT_NE(context.status().message().find(" lo "), std::string::npos) << context.status().message();
}

TEST(Context, WrongSecretIsToldAtOnce) {
  const auto server = serve();
  ContextConfig config = config_for(0, 2, *server);
  config.secret = "guess";
  const std::int64_t began = now_ns();
  EXPECT_EQ(Context::connect(config).status().code(), Code::auth);
  EXPECT_LT(now_ns() - began, 5'000'000'000);
}

TEST(Context, MissingRanksAreNamed) {
  const auto server = serve();
  ContextConfig config = config_for(1, 4, *server);
  config.timeout_s = 0.3;
  std::thread third([&] {
    ContextConfig other = config;
    other.rank = 3;
    EXPECT_EQ(Context::connect(other).status().code(), Code::deadline);
  });
  const auto context = Context::connect(config);
  third.join();
  EXPECT_EQ(context.status().code(), Code::deadline);
  EXPECT_EQ(context.status().ranks(), (std::vector<int>{0, 2}));
  EXPECT_NE(context.status().message().find("0, 2"), std::string::npos);
}

TEST(Context, ControlMessagesArriveInOrderAndWaitForTheGroup) {
  const auto server = serve();
  for (const bool shared : {true, false}) {
    auto contexts = meet(3, *server, [&](ContextConfig& config) {
      config.name = shared ? "shared" : "apart";
      config.allow_shared_memory = shared;
    });
    Diary diary;
    for (std::uint64_t i = 0; i < 500; ++i) contexts[0]->send_control(2, say(7, i, "early"));
    contexts[2]->register_group(7, all(3), &diary);
    for (std::uint64_t i = 500; i < 1000; ++i) contexts[0]->send_control(2, say(7, i, std::string(60'000, 'x')));
    EXPECT_TRUE(diary.has("from 0: 999 "));
    const auto notes = diary.notes();
    ASSERT_EQ(notes.size(), 1000u);
    for (std::size_t i = 0; i < notes.size(); ++i)
      EXPECT_EQ(notes[i].rfind("from 0: " + std::to_string(i) + " ", 0), 0u) << i;
    contexts[2]->unregister_group(7);
    contexts[0]->send_control(2, say(7, 1000, "late"));
    leave(contexts);
    EXPECT_EQ(diary.notes().size(), 1000u);
  }
}

TEST(Context, OnlyMembersSpeakForAGroup) {
  const auto server = serve();
  auto contexts = meet(3, *server);
  Diary diary;
  contexts[0]->register_group(5, {0, 1}, &diary);
  contexts[2]->send_control(0, say(5, 1, "intruder"));
  contexts[2]->send_control(0, say(6, 1, "sync"));
  contexts[1]->send_control(0, say(5, 2, "member"));
  EXPECT_TRUE(diary.has("from 1: 2"));
  EXPECT_EQ(diary.notes().size(), 1u);
  contexts[0]->unregister_group(5);
  leave(contexts);
}

TEST(Context, GoodbyeIsNoLoss) {
  const auto server = serve();
  for (const bool shared : {true, false}) {
    auto contexts = meet(3, *server, [&](ContextConfig& config) {
      config.name = shared ? "shared" : "apart";
      config.allow_shared_memory = shared;
    });
    Diary diaries[2];
    for (int rank : {0, 1}) contexts[static_cast<std::size_t>(rank)]->register_group(1, all(3), &diaries[rank]);
    contexts[2]->send_control(0, say(1, 9, "last words"));
    contexts[2].reset();
    for (Diary& diary : diaries) EXPECT_TRUE(diary.has("left 2"));
    EXPECT_EQ(diaries[0].notes().front(), "from 2: 9 last words");
    // Those who register later hear of it as well.
    Diary late;
    contexts[1]->register_group(2, {1, 2}, &late);
    EXPECT_TRUE(late.has("left 2"));
    for (int rank : {0, 1}) contexts[static_cast<std::size_t>(rank)]->unregister_group(1);
    contexts[1]->unregister_group(2);
    contexts.pop_back();
    leave(contexts);
  }
}

TEST(Context, RegionsAreReallyShared) {
  const auto server = serve();
  constexpr int kSize = 4;
  constexpr std::size_t kBytes = std::size_t{20} << 20;
  auto contexts = meet(kSize, *server);
  Failure failure;
  std::vector<Regions> regions(kSize);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kSize; ++rank) {
    threads.emplace_back([&, rank] {
      // Late ranks find the offers of the others waiting.
      std::this_thread::sleep_for(std::chrono::milliseconds(20 * rank));
      auto mine = contexts[static_cast<std::size_t>(rank)]->share_regions(3, all(kSize), kBytes, soon(), failure);
      ASSERT_TRUE(mine.ok()) << mine.status().message();
      regions[static_cast<std::size_t>(rank)] = std::move(*mine);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int owner = 0; owner < kSize; ++owner) {
    std::byte* own = regions[static_cast<std::size_t>(owner)].base[static_cast<std::size_t>(owner)];
    ASSERT_NE(own, nullptr);
    own[kBytes - 1] = static_cast<std::byte>(owner + 1);
    for (Regions& seen : regions) {
      ASSERT_TRUE(seen.shared_by_all());
      EXPECT_EQ(seen.header(owner).owner, static_cast<std::uint32_t>(owner));
      EXPECT_EQ(seen.base[static_cast<std::size_t>(owner)][kBytes - 1], static_cast<std::byte>(owner + 1));
      EXPECT_EQ(seen.base[static_cast<std::size_t>(owner)][kBytes / 2], std::byte{0});
    }
  }
  for (std::size_t rank = 0; rank < kSize; ++rank) contexts[rank]->release_regions(regions[rank]);
  EXPECT_EQ(regions[0].base[1], nullptr);
  leave(contexts);
}

TEST(Context, RegionsOfSomeRanksOnly) {
  const auto server = serve();
  auto contexts = meet(3, *server, [](ContextConfig& config) { config.allow_shared_memory = config.rank != 1; });
  Failure failure;
  std::vector<std::thread> threads;
  for (std::size_t rank = 0; rank < 3; ++rank) {
    threads.emplace_back([&, rank] {
      auto mine = contexts[rank]->share_regions(3, {2, 1, 0}, 1 << 16, soon(), failure);
      ASSERT_TRUE(mine.ok()) << mine.status().message();
      for (std::size_t i = 0; i < 3; ++i) {
        const bool shared = (2 - i == rank) || (rank != 1 && i != 1);
        EXPECT_EQ(mine->base[i] != nullptr, shared) << "rank " << rank << " entry " << i;
      }
      contexts[rank]->release_regions(*mine);
    });
  }
  for (std::thread& thread : threads) thread.join();
  leave(contexts);
}

TEST(Context, RegionsEndByDeadlineFailureAndRefusal) {
  const auto server = serve();
  auto contexts = meet(3, *server);
  Failure failure;
  auto late = contexts[0]->share_regions(1, {0, 1, 2}, 1 << 16, soon(0.2), failure);
  EXPECT_EQ(late.status().code(), Code::deadline);
  EXPECT_EQ(late.status().ranks(), (std::vector<int>{1, 2}));
  // The one that gave up has told the others.
  auto refused = contexts[1]->share_regions(1, {0, 1, 2}, 1 << 16, soon(), failure);
  EXPECT_EQ(refused.status().code(), Code::deadline);
  EXPECT_EQ(refused.status().ranks(), (std::vector<int>{0}));

  std::thread other([&] { EXPECT_FALSE(contexts[1]->share_regions(2, {0, 1}, 1 << 17, soon(), failure).ok()); });
  EXPECT_EQ(contexts[0]->share_regions(2, {0, 1}, 1 << 16, soon(), failure).status().code(), Code::protocol);
  other.join();

  auto huge = contexts[0]->share_regions(4, {0}, std::size_t{1} << 50, soon(), failure);
  EXPECT_EQ(huge.status().code(), Code::resource);

  failure.set(Status(Code::aborted, "enough"));
  EXPECT_EQ(contexts[0]->share_regions(3, {0, 1}, 1 << 16, soon(), failure).status().code(), Code::aborted);
  leave(contexts);
}

TEST(Context, RegionsEndWhenAPeerGoes) {
  const auto server = serve();
  auto contexts = meet(2, *server);
  Failure failure;
  std::thread goes([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    contexts[1].reset();
  });
  auto mine = contexts[0]->share_regions(1, {0, 1}, 1 << 16, soon(), failure);
  goes.join();
  EXPECT_EQ(mine.status().code(), Code::peer_lost);
  EXPECT_EQ(mine.status().ranks(), (std::vector<int>{1}));
}

// A rank in a process of its own that joins and then does nothing, until it is killed.
pid_t start_process(const ContextConfig& config, bool with_child) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  const auto context = Context::connect(config);
  if (!context.ok()) ::_exit(1);
  if (with_child && ::fork() == 0) {
    // Keeps the sockets of its parent open for longer than the test lasts, unless something else ends it.
    ::alarm(30);
    for (;;) ::pause();
  }
  ::alarm(60);
  for (;;) ::pause();
}

class Killed : public ::testing::TestWithParam<std::pair<bool, bool>> {};

TEST_P(Killed, IsNoticedWithinASecond) {
  const auto [shared, with_child] = GetParam();
  // The child must be forked while this process has no other thread, so the store runs in it as well; it tells its
  // port.
  int tell[2];
  ASSERT_EQ(::pipe(tell), 0);
  const pid_t leader = ::fork();
  if (leader == 0) {
    ::setpgid(0, 0);
    const auto server = serve();
    const std::uint16_t port = server->port();
    if (::write(tell[1], &port, sizeof(port)) != sizeof(port)) ::_exit(2);
    ::alarm(60);
    for (;;) ::pause();
  }
  std::uint16_t port = 0;
  ASSERT_EQ(::read(tell[0], &port, sizeof(port)), static_cast<ssize_t>(sizeof(port)));
  ::close(tell[0]);
  ::close(tell[1]);
  ContextConfig config;
  config.size = 3;
  config.store_host = "127.0.0.1";
  config.store_port = port;
  config.secret = "secret";
  config.timeout_s = 20;
  config.allow_shared_memory = shared;
  config.rank = 2;
  const pid_t victim = start_process(config, with_child);
  config.rank = 1;
  Result<std::shared_ptr<Context>> other = Status(Code::internal, "unset");
  std::thread second([&] { other = Context::connect(config); });
  ContextConfig mine = config;
  mine.rank = 0;
  auto context = Context::connect(mine);
  second.join();
  ASSERT_TRUE(context.ok()) << context.status().message();
  ASSERT_TRUE(other.ok()) << other.status().message();
  Diary diaries[2];
  (*context)->register_group(1, all(3), &diaries[0]);
  (*other)->register_group(1, all(3), &diaries[1]);
  EXPECT_EQ((*context)->process_of(2), victim);

  const std::int64_t began = now_ns();
  ::kill(victim, SIGKILL);
  for (Diary& diary : diaries) {
    EXPECT_TRUE(diary.has("lost 2: its process (pid " + std::to_string(victim) + " on this host) ended"));
    EXPECT_EQ(diary.notes().size(), 1u);
  }
  EXPECT_LT(now_ns() - began, 1'000'000'000);
  ::waitpid(victim, nullptr, 0);
  (*context)->unregister_group(1);
  (*other)->unregister_group(1);
  other = Status(Code::internal, "gone");
  context = Status(Code::internal, "gone");
  ::kill(leader, SIGKILL);
  ::waitpid(leader, nullptr, 0);
}

INSTANTIATE_TEST_SUITE_P(EveryWay, Killed,
                         ::testing::Values(std::pair{true, false}, std::pair{false, false}, std::pair{true, true},
                                           std::pair{false, true}));

TEST(Context, StrangersAtTheDoorsDisturbNothing) {
  const auto server = serve();
  auto contexts = meet(2, *server, [](ContextConfig& config) { config.allow_shared_memory = false; });
  Diary diary;
  contexts[0]->register_group(1, all(2), &diary);
  // The port of rank 0, from what it published.
  const std::string info = *contexts[1]->store().get("pycomm/world/0", soon());
  Address address;
  std::memcpy(&address.storage, info.data() + info.size() - sizeof(sockaddr_in), sizeof(sockaddr_in));
  address.length = sizeof(sockaddr_in);
  ASSERT_EQ(address.family(), AF_INET);
  std::vector<UniqueFd> half_open;
  for (int i = 0; i < 100; ++i) {
    bool pending = false;
    int error = 0;
    UniqueFd fd = start_connect(address, pending, error);
    ASSERT_TRUE(fd) << error;
    ASSERT_TRUE(wait_ready(fd.get(), POLLOUT, soon()));
    const std::string noise(static_cast<std::size_t>(i) * 40, static_cast<char>(i));
    // It may hang up first; that is its right.
    (void)::send(fd.get(), noise.data(), noise.size(), MSG_NOSIGNAL);
    if (i % 2 == 0) half_open.push_back(std::move(fd));
  }
  contexts[1]->send_control(0, say(1, 1, "still here"));
  EXPECT_TRUE(diary.has("from 1: 1 still here"));
  EXPECT_EQ(diary.notes().size(), 1u);
  contexts[0]->unregister_group(1);
  leave(contexts);
}

TEST(Context, ChecksItsConfiguration) {
  const auto server = serve();
  for (const auto& spoil : std::vector<std::function<void(ContextConfig&)>>{
           [](ContextConfig& c) { c.size = 0; }, [](ContextConfig& c) { c.rank = 1; },
           [](ContextConfig& c) { c.rank = -1; }, [](ContextConfig& c) { c.family = 5; },
           [](ContextConfig& c) { c.tcp_connections = 0; }}) {
    ContextConfig config = config_for(0, 1, *server);
    spoil(config);
    EXPECT_EQ(Context::connect(config).status().code(), Code::usage);
  }
}

}  // namespace
}  // namespace pycomm
