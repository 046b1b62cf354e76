// The rendezvous store: what it keeps, whom it serves, and what strangers can do to it (nothing).
#include "net/store.h"

#include <dirent.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "base/socket.h"

namespace pycomm {
namespace {

Deadline soon(double seconds = 10.0) { return Deadline::after(seconds); }

std::unique_ptr<StoreServer> serve(const std::string& host = "127.0.0.1") {
  Result<std::unique_ptr<StoreServer>> server = StoreServer::start(host, 0, "secret");
  EXPECT_TRUE(server.ok()) << server.status().message();
  return server.ok() ? std::move(*server) : nullptr;
}

std::unique_ptr<StoreClient> join(const StoreServer& server, const std::string& host = "127.0.0.1") {
  Result<std::unique_ptr<StoreClient>> client = StoreClient::connect(host, server.port(), "secret", soon());
  EXPECT_TRUE(client.ok()) << client.status().message();
  return client.ok() ? std::move(*client) : nullptr;
}

UniqueFd stranger(std::uint16_t port) {
  Result<std::vector<Address>> address = resolve("127.0.0.1", port, 4);
  bool pending = false;
  int error = 0;
  UniqueFd fd = start_connect(address->front(), pending, error);
  EXPECT_TRUE(fd);
  EXPECT_TRUE(wait_ready(fd.get(), POLLOUT, soon()));
  return fd;
}

int open_descriptors() {
  int count = 0;
  DIR* dir = ::opendir("/proc/self/fd");
  while (::readdir(dir) != nullptr) ++count;
  ::closedir(dir);
  return count;
}

TEST(Store, KeepsWhatIsWrittenOnce) {
  const auto server = serve();
  const auto client = join(*server);
  EXPECT_TRUE(client->set("a", "1", soon()).ok());
  EXPECT_TRUE(client->set("a", "1", soon()).ok());
  const Status again = client->set("a", "2", soon());
  EXPECT_EQ(again.code(), Code::usage);
  EXPECT_NE(again.message().find("'a'"), std::string::npos);
  EXPECT_EQ(*client->get("a", soon()), "1");
  EXPECT_TRUE(client->set("empty", "", soon()).ok());
  EXPECT_EQ(*client->get("empty", soon()), "");
}

TEST(Store, GetWaitsForTheKeyAndOthersGoOn) {
  const auto server = serve();
  const auto client = join(*server);
  std::thread reader([&] { EXPECT_EQ(*client->get("late", soon()), std::string(3'000'000, 'x')); });
  EXPECT_TRUE(client->set("other", "1", soon()).ok());
  EXPECT_EQ(*client->get("other", soon()), "1");
  EXPECT_TRUE(client->set("late", std::string(3'000'000, 'x'), soon()).ok());
  reader.join();
}

TEST(Store, DeadlineNamesTheKey) {
  const auto server = serve();
  const auto client = join(*server);
  const Result<std::string> value = client->get("never", soon(0.05));
  EXPECT_EQ(value.status().code(), Code::deadline);
  EXPECT_NE(value.status().message().find("never"), std::string::npos);
  EXPECT_TRUE(client->set("still works", "1", soon()).ok());
}

TEST(Store, ManyKeysAtOnceAndThoseThatMiss) {
  const auto server = serve();
  const auto client = join(*server);
  std::vector<std::string> keys;
  for (int i = 0; i < 1000; ++i) {
    keys.push_back("k" + std::to_string(i));
    if (i == 500) continue;
    EXPECT_TRUE(client->set(keys.back(), std::to_string(i), soon()).ok());
  }
  auto values = client->get_many(keys, soon(0.3));
  ASSERT_TRUE(values.ok());
  for (std::size_t i = 0; i < keys.size(); ++i)
    EXPECT_EQ((*values)[i], i == 500 ? std::nullopt : std::optional(std::to_string(i)));
}

TEST(Store, LimitsAreToldBeforeAnythingIsSent) {
  const auto server = serve();
  const auto client = join(*server);
  EXPECT_EQ(client->set("", "x", soon()).code(), Code::usage);
  EXPECT_EQ(client->set(std::string(kMaxStoreKey + 1, 'k'), "x", soon()).code(), Code::usage);
  EXPECT_EQ(client->get(std::string(kMaxStoreKey + 1, 'k'), soon()).status().code(), Code::usage);
}

TEST(Store, WrongSecretIsToldAtOnce) {
  const auto server = serve();
  const std::int64_t began = now_ns();
  const auto client = StoreClient::connect("127.0.0.1", server->port(), "guess", soon(30));
  EXPECT_EQ(client.status().code(), Code::auth);
  EXPECT_LT(now_ns() - began, 5'000'000'000);
  EXPECT_EQ(server->turned_away().denied, 1u);
  EXPECT_TRUE(join(*server)->set("x", "y", soon()).ok());
}

TEST(Store, AServerThatDoesNotKnowTheSecretIsRefused) {
  // Plays the server's part with a wrong key: the client must not talk to it.
  Result<std::vector<Address>> address = resolve("127.0.0.1", 0, 4);
  Result<UniqueFd> listener = listen_on(address->front());
  const std::uint16_t port = local_address(listener->get())->port();
  std::thread impostor([&] {
    ASSERT_TRUE(wait_ready(listener->get(), POLLIN, soon()));
    const UniqueFd fd(::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    Handshake shake = Handshake::server("guess", nullptr);
    EXPECT_EQ(shake.finish(fd.get(), soon()).code(), Code::auth);
  });
  EXPECT_EQ(StoreClient::connect("127.0.0.1", port, "secret", soon()).status().code(), Code::auth);
  impostor.join();
}

TEST(Store, NobodyThereIsADeadlineThatSaysSo) {
  std::uint16_t port = 0;
  {
    const auto server = serve();
    port = server->port();
  }
  const auto client = StoreClient::connect("127.0.0.1", port, "secret", soon(0.2));
  EXPECT_EQ(client.status().code(), Code::deadline);
  EXPECT_NE(client.status().message().find(std::to_string(port)), std::string::npos);
}

TEST(Store, StrangersChangeNothing) {
  const auto server = serve();
  const auto client = join(*server);
  const int before = open_descriptors();
  {
    const std::vector<std::string> noise = {"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + std::string(64, 'x'),
                                            std::string(64, '\0'), std::string(100'000, '\xff'), "x", ""};
    std::vector<UniqueFd> half_open;
    for (int round = 0; round < 40; ++round) {
      for (const std::string& text : noise) {
        const UniqueFd fd = stranger(server->port());
        // The server may hang up first; that is its right.
        (void)::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL);
      }
      half_open.push_back(stranger(server->port()));
      half_open.push_back(stranger(server->port()));
    }
    EXPECT_TRUE(client->set("meanwhile", "1", soon()).ok());
    EXPECT_TRUE(join(*server)->set("newcomer", "1", soon()).ok());
  }
  while (server->turned_away().garbage + server->turned_away().expired < 40 * 7)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(server->turned_away().denied, 0u);
  for (int i = 0; i < 200 && open_descriptors() > before + 1; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_LE(open_descriptors(), before + 1);
}

TEST(Store, ServesIPv6) {
  const auto server = serve("::1");
  ASSERT_NE(server, nullptr);
  const auto client = join(*server, "::1");
  EXPECT_TRUE(client->set("six", "6", soon()).ok());
  EXPECT_EQ(*client->get("six", soon()), "6");
  EXPECT_EQ(client->local().family(), AF_INET6);
}

TEST(Store, ManyClientsMeet) {
  const auto server = serve();
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 32; ++rank) {
    threads.emplace_back([&, rank] {
      const auto client = join(*server);
      EXPECT_TRUE(client->set("r" + std::to_string(rank), std::to_string(rank * rank), soon()).ok());
      for (int peer = 0; peer < 32; ++peer)
        right += *client->get("r" + std::to_string(peer), soon()) == std::to_string(peer * peer);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 32 * 32);
}

TEST(HostPort, Parses) {
  EXPECT_EQ(parse_host_port("a.b:80")->host, "a.b");
  EXPECT_EQ(parse_host_port("a.b:80")->port, 80);
  EXPECT_EQ(parse_host_port("[::1]:29500")->host, "::1");
  for (const char* wrong : {"", "a", "a:", ":80", "a:b", "a:80x", "a:65536", "::1:80", "[::1]80", "[::1", "a:-1"})
    EXPECT_EQ(parse_host_port(wrong).status().code(), Code::usage) << wrong;
}

}  // namespace
}  // namespace pycomm
