// Frames over TCP: every size, order, landings that copy, reduce, park and refuse, cancelling, and the end of a peer.
#include "transport/tcp/tcp.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "net/context.h"

namespace pycomm {
namespace {

void add_int32(void* out, const void* a, const void* b, std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) {
    std::int32_t x = 0;
    std::int32_t y = 0;
    std::memcpy(&x, static_cast<const char*>(a) + 4 * i, 4);
    std::memcpy(&y, static_cast<const char*>(b) + 4 * i, 4);
    x += y;
    std::memcpy(static_cast<char*>(out) + 4 * i, &x, 4);
  }
}

// Lands messages in buffers by (peer, channel, seq); knows what has come.
class Sink : public Receiver {
 public:
  struct Slot {
    std::vector<std::byte> bytes;
    std::vector<std::byte> operand;  // not empty: reduce
    std::uint64_t landed = 0;
    std::uint64_t total = 0;
    bool unwanted = false;
  };
  using Key = std::tuple<int, int, std::uint64_t>;

  // Ahead of the frames, or frames make plain slots of their own.
  void expect(Key key, Slot slot) {
    const std::lock_guard lock(mutex_);
    slots_[key] = std::move(slot);
  }
  Landing landing(int peer, const FrameHeader& header) noexcept override {
    const std::lock_guard lock(mutex_);
    ++active_;
    Slot& slot = slots_[{peer, header.channel, header.seq}];
    if (slot.bytes.size() < header.total) slot.bytes.resize(header.total);
    slot.total = header.total;
    Landing landing;
    landing.cookie = &slot;
    if (slot.unwanted) return landing;
    landing.dst = slot.bytes.data() + header.offset;
    if (!slot.operand.empty()) {
      landing.reduce = add_int32;
      landing.itemsize = 4;
      landing.operand = slot.operand.data() + header.offset;
    }
    return landing;
  }
  void landed(int peer, const FrameHeader& header, const Landing& landing) noexcept override {
    const std::lock_guard lock(mutex_);
    --active_;
    static_cast<Slot*>(landing.cookie)->landed += header.nbytes;
    order_[{peer, header.channel}].push_back(header.seq);
    changed_.notify_all();
  }
  void parked(int, const FrameHeader&, const Landing&) noexcept override {
    const std::lock_guard lock(mutex_);
    ++parked_;
    changed_.notify_all();
  }
  bool resumed(int, const FrameHeader&, const Landing&) noexcept override {
    const std::lock_guard lock(mutex_);
    --parked_;
    return !taken_back_;
  }
  void returned() noexcept override { ++returned_; }

  bool wait(const std::function<bool()>& holds, double seconds = 20) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::duration<double>(seconds), holds);
  }
  bool wait_for(Key key) {
    return wait([&] {
      const auto found = slots_.find(key);
      return found != slots_.end() && !order_[{std::get<0>(key), std::get<1>(key)}].empty() &&
             found->second.landed >= found->second.total && seen(key);
    });
  }
  Slot take(Key key) {
    const std::lock_guard lock(mutex_);
    return slots_[key];
  }
  std::vector<std::uint64_t> order(int peer, int channel) {
    const std::lock_guard lock(mutex_);
    return order_[{peer, channel}];
  }
  void take_back() {
    const std::lock_guard lock(mutex_);
    taken_back_ = true;
  }
  int parked_now() const { return parked_; }
  int active_now() const { return active_; }

 private:
  bool seen(Key key) {
    for (const std::uint64_t seq : order_[{std::get<0>(key), std::get<1>(key)}])
      if (seq == std::get<2>(key)) return true;
    return false;
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Key, Slot> slots_;
  std::map<std::pair<int, int>, std::vector<std::uint64_t>> order_;
  std::atomic<int> active_{0};
  std::atomic<int> parked_{0};
  std::atomic<int> returned_{0};
  bool taken_back_ = false;
};

class Quiet : public Context::GroupListener {
 public:
  void on_peer_lost(int, const std::string& why) override {
    const std::lock_guard lock(mutex_);
    why_ = why;
    ++lost;
  }
  void on_peer_left(int) override { ++left; }
  void on_control(int, const ControlMessage&) override {}
  std::string why() {
    const std::lock_guard lock(mutex_);
    return why_;
  }
  std::atomic<int> lost{0};
  std::atomic<int> left{0};

 private:
  std::mutex mutex_;
  std::string why_;
};

// Two ranks that share no memory, with one group.
class Tcp : public ::testing::TestWithParam<std::string> {
 protected:
  static constexpr std::uint32_t kGroup = 9;
  void SetUp() override {
    const std::string host = GetParam();
    for (auto& side : at_) side = std::make_unique<Side>();
    auto server = StoreServer::start(host, 0, "secret");
    ASSERT_TRUE(server.ok()) << server.status().message();
    server_ = std::move(*server);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 2; ++rank) {
      threads.emplace_back([this, rank, host] {
        ContextConfig config;
        config.rank = rank;
        config.size = 2;
        config.store_host = host;
        config.store_port = server_->port();
        config.secret = "secret";
        config.timeout_s = 20;
        config.allow_shared_memory = false;
        auto context = Context::connect(config);
        ASSERT_TRUE(context.ok()) << context.status().message();
        at_[rank]->context = *context;
      });
    }
    for (std::thread& thread : threads) thread.join();
    ASSERT_NE(at_[0]->context, nullptr);
    ASSERT_NE(at_[1]->context, nullptr);
  }
  void open(int rank) {
    Side& side = *at_[rank];
    side.transport = side.context->tcp_transport(kGroup, {0, 1}, side.sink);
    side.context->register_group(kGroup, {0, 1}, &side.listener, &side.sink);
  }
  void close(int rank) {
    Side& side = *at_[rank];
    if (side.transport) side.context->unregister_group(kGroup);
    side.transport.reset();
  }
  void TearDown() override {
    std::vector<std::thread> threads;
    for (int rank : {0, 1})
      threads.emplace_back([this, rank] {
        close(rank);
        at_[rank]->context.reset();
      });
    for (std::thread& thread : threads) thread.join();
  }

  static FrameHeader header(int src, int channel, std::uint64_t seq, std::uint64_t offset, std::uint64_t nbytes,
                            std::uint64_t total) {
    FrameHeader h{};
    h.magic = kFrameMagic;
    h.type = FrameType::schedule;
    h.channel = static_cast<std::uint16_t>(channel);
    h.group = kGroup;
    h.src = static_cast<std::uint32_t>(src);
    h.seq = seq;
    h.offset = offset;
    h.nbytes = nbytes;
    h.total = total;
    return h;
  }
  // A message as frames, as the executor cuts it.
  void send(int src, int channel, std::uint64_t seq, const std::vector<std::byte>& bytes, Lent& lent) {
    Endpoint& to = at_[src]->transport->connect(1 - src);
    std::size_t offset = 0;
    do {
      const std::size_t part = std::min(kMaxFramePayload, bytes.size() - offset);
      lent.fetch_add(1);
      to.post_send(header(src, channel, seq, offset, part, bytes.size()), bytes.data() + offset, lent);
      offset += part;
    } while (offset < bytes.size());
  }
  static bool falls(const Lent& lent, double seconds = 20) {
    const Deadline deadline = Deadline::after(seconds);
    while (lent.load(std::memory_order_acquire) != 0) {
      if (deadline.passed()) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }
  // Differs by seed and place; its period is a prime, so that no piece can stand in for another. Laid by memcpy:
  // sanitizers make bytewise loops slow.
  static std::vector<std::byte> pattern(std::size_t nbytes, std::uint32_t seed) {
    constexpr std::size_t kPeriod = 8191;
    std::vector<std::byte> bytes(nbytes);
    const std::size_t first = std::min(nbytes, kPeriod);
    for (std::size_t i = 0; i < first; ++i) bytes[i] = static_cast<std::byte>((i * 2654435761u + seed * 40503u) >> 13);
    for (std::size_t at = first; at < nbytes; at += kPeriod)
      std::memcpy(bytes.data() + at, bytes.data(), std::min(kPeriod, nbytes - at));
    return bytes;
  }

  struct Side {
    std::shared_ptr<Context> context;
    Sink sink;
    Quiet listener;
    std::unique_ptr<Transport> transport;
  };
  std::unique_ptr<StoreServer> server_;
  std::unique_ptr<Side> at_[2];
};

TEST_P(Tcp, CarriesEverySizeBothWaysAtOnce) {
  open(0);
  open(1);
  const std::size_t sizes[] = {0, 1, 63, 64, 65, 4096, 65'537, kMaxFramePayload, kMaxFramePayload + 1, 8 << 20};
  std::vector<std::vector<std::byte>> messages[2];
  Lent lent[2] = {0, 0};
  for (int src : {0, 1}) {
    std::uint64_t seq = 0;
    for (const std::size_t nbytes : sizes)
      messages[src].push_back(
          pattern(nbytes, static_cast<std::uint32_t>(++seq) + 100u * static_cast<std::uint32_t>(src)));
  }
  for (std::uint64_t seq = 0; seq < std::size(sizes); ++seq)
    for (int src : {0, 1}) send(src, static_cast<int>(seq % 3), seq, messages[src][seq], lent[src]);
  for (int src : {0, 1}) {
    for (std::uint64_t seq = 0; seq < std::size(sizes); ++seq) {
      const Sink::Key key{src, static_cast<int>(seq % 3), seq};
      ASSERT_TRUE(at_[1 - src]->sink.wait_for(key)) << "message " << seq;
      EXPECT_EQ(at_[1 - src]->sink.take(key).bytes, messages[src][seq]) << "message " << seq;
    }
    EXPECT_TRUE(falls(lent[src]));
  }
  EXPECT_EQ(at_[0]->sink.active_now(), 0);
  EXPECT_EQ(at_[0]->listener.lost + at_[1]->listener.lost, 0);
}

TEST_P(Tcp, ReducesOnElementBoundaries) {
  open(0);
  open(1);
  constexpr std::size_t kCount = (2 << 20) / 4 + 3;
  std::vector<std::int32_t> sent(kCount);
  std::vector<std::int32_t> operand(kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    sent[i] = static_cast<std::int32_t>(i * 7);
    operand[i] = static_cast<std::int32_t>(1000 - i);
  }
  std::vector<std::byte> bytes(4 * kCount);
  std::memcpy(bytes.data(), sent.data(), bytes.size());
  Sink::Slot slot;
  slot.bytes.resize(bytes.size());
  slot.operand.resize(bytes.size());
  std::memcpy(slot.operand.data(), operand.data(), bytes.size());
  at_[1]->sink.expect({0, 4, 1}, std::move(slot));
  Lent lent{0};
  send(0, 4, 1, bytes, lent);
  ASSERT_TRUE(at_[1]->sink.wait_for({0, 4, 1}));
  const Sink::Slot got = at_[1]->sink.take({0, 4, 1});
  for (std::size_t i = 0; i < kCount; ++i) {
    std::int32_t value = 0;
    std::memcpy(&value, got.bytes.data() + 4 * i, 4);
    ASSERT_EQ(value, static_cast<std::int32_t>(1000 + i * 6)) << i;
  }
  EXPECT_TRUE(falls(lent));
}

TEST_P(Tcp, KeepsTheOrderOfAChannelAndServesManyThreads) {
  open(0);
  open(1);
  constexpr int kThreads = 4;
  constexpr std::uint64_t kFrames = 2000;
  const std::vector<std::byte> small = pattern(200, 1);
  std::vector<Lent> lent(kThreads);
  std::vector<std::thread> threads;
  for (int channel = 0; channel < kThreads; ++channel) {
    threads.emplace_back([&, channel] {
      for (std::uint64_t seq = 0; seq < kFrames; ++seq)
        send(0, channel, seq, small, lent[static_cast<std::size_t>(channel)]);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int channel = 0; channel < kThreads; ++channel) {
    ASSERT_TRUE(at_[1]->sink.wait_for({0, channel, kFrames - 1}));
    const auto order = at_[1]->sink.order(0, channel);
    ASSERT_EQ(order.size(), kFrames);
    for (std::uint64_t seq = 0; seq < kFrames; ++seq) ASSERT_EQ(order[seq], seq);
    EXPECT_TRUE(falls(lent[static_cast<std::size_t>(channel)]));
  }
}

TEST_P(Tcp, FramesWaitForAGroupThatIsNotOpenYet) {
  open(0);
  // More than is kept: the rest waits in the connection.
  const std::vector<std::byte> bytes = pattern(tcp::kMaxKeptBytes / 2 + 5, 3);
  Lent lent{0};
  for (std::uint64_t seq = 0; seq < 3; ++seq) send(0, 1, seq, bytes, lent);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(at_[1]->sink.active_now(), 0);
  open(1);
  for (std::uint64_t seq = 0; seq < 3; ++seq) {
    ASSERT_TRUE(at_[1]->sink.wait_for({0, 1, seq}));
    EXPECT_EQ(at_[1]->sink.take({0, 1, seq}).bytes, bytes);
  }
  EXPECT_TRUE(falls(lent));
}

TEST_P(Tcp, UnwantedPayloadIsReadAndForgotten) {
  open(0);
  open(1);
  Sink::Slot slot;
  slot.unwanted = true;
  at_[1]->sink.expect({0, 2, 1}, std::move(slot));
  const std::vector<std::byte> bytes = pattern(3 << 20, 5);
  Lent lent{0};
  send(0, 2, 1, bytes, lent);
  send(0, 2, 2, bytes, lent);
  ASSERT_TRUE(at_[1]->sink.wait_for({0, 2, 2}));
  EXPECT_EQ(at_[1]->sink.take({0, 2, 2}).bytes, bytes);
  EXPECT_EQ(at_[1]->sink.take({0, 2, 1}).bytes, std::vector<std::byte>(bytes.size()));
}

TEST_P(Tcp, CancelReturnsAllMemoryAtOnce) {
  open(0);
  // Nobody takes the frames, so the connection fills up and a frame is left half-sent.
  std::vector<std::byte> bytes = pattern(std::size_t{48} << 20, 7);
  Lent first{0};
  Lent second{0};
  send(0, 0, 1, bytes, first);
  send(0, 0, 2, bytes, second);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  ASSERT_NE(first.load() + second.load(), 0u);
  Endpoint& to = at_[0]->transport->connect(1);
  to.cancel(FrameType::schedule, 1);
  EXPECT_EQ(first.load(), 0u);
  EXPECT_NE(second.load(), 0u);
  to.cancel_all();
  EXPECT_EQ(second.load(), 0u);
  std::fill(bytes.begin(), bytes.end(), std::byte{0});
  // What is half on its way is finished, and the connection is as good as before.
  open(1);
  const std::vector<std::byte> after = pattern(5000, 8);
  send(0, 0, 3, after, first);
  ASSERT_TRUE(at_[1]->sink.wait_for({0, 0, 3}));
  EXPECT_EQ(at_[1]->sink.take({0, 0, 3}).bytes, after);
  EXPECT_EQ(at_[1]->listener.lost, 0);
}

TEST_P(Tcp, DataThatWasSentBeforeGoodbyeArrivesBeforeTheNewsOfIt) {
  open(0);
  open(1);
  const std::vector<std::byte> bytes = pattern(6 << 20, 9);
  Lent lent{0};
  send(0, 0, 1, bytes, lent);
  EXPECT_TRUE(falls(lent));
  close(0);
  at_[0]->context->goodbye();
  EXPECT_TRUE(at_[1]->sink.wait_for({0, 0, 1}));
  EXPECT_EQ(at_[1]->sink.take({0, 0, 1}).bytes, bytes);
  const Deadline deadline = Deadline::after(10);
  while (at_[1]->listener.left == 0 && !deadline.passed()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(at_[1]->listener.left, 1);
  EXPECT_EQ(at_[1]->listener.lost, 0);
  // Frames to whoever has left vanish, and their memory is returned.
  send(1, 0, 1, bytes, lent);
  EXPECT_TRUE(falls(lent));
}

TEST_P(Tcp, AMalformedFrameIsTheEndOfThatPeerOnly) {
  for (int kind = 0; kind < 5; ++kind) {
    if (kind > 0) {
      TearDown();
      SetUp();
    }
    open(0);
    open(1);
    FrameHeader wrong = header(0, 0, 1, 0, 8, 8);
    if (kind == 0) wrong.magic = 1;
    if (kind == 1) wrong.type = static_cast<FrameType>(99);
    if (kind == 2) wrong.offset = UINT64_MAX - 3;
    if (kind == 3) wrong.src = 1;
    if (kind == 4) wrong.dtype = static_cast<DType>(77);
    const std::uint64_t payload = 1;
    Lent lent{1};
    at_[0]->transport->connect(1).post_send(wrong, &payload, lent);
    const Deadline deadline = Deadline::after(10);
    while (at_[1]->listener.lost == 0 && !deadline.passed()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_EQ(at_[1]->listener.lost, 1) << "kind " << kind;
    EXPECT_NE(at_[1]->listener.why().find("it sent"), std::string::npos) << at_[1]->listener.why();
    EXPECT_TRUE(falls(lent));
  }
}

TEST_P(Tcp, LendingEndsWhenThePeerGoes) {
  open(0);
  const std::vector<std::byte> bytes = pattern(std::size_t{48} << 20, 7);
  Lent lent{0};
  send(0, 0, 1, bytes, lent);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  at_[1]->context.reset();
  EXPECT_TRUE(falls(lent));
}

INSTANTIATE_TEST_SUITE_P(Families, Tcp, ::testing::Values("127.0.0.1", "::1"),
                         [](const auto& param) { return param.index == 0 ? "IPv4" : "IPv6"; });

}  // namespace
}  // namespace pycomm
