// The frame rings by themselves, with a receiver that checks what it gets.
#include <gtest/gtest.h>

#include <cstring>
#include <thread>
#include <vector>

#include "pycomm/region.h"
#include "transport/inproc/inproc.h"
#include "transport/shm/shm.h"

namespace pycomm {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes pattern(std::size_t nbytes, std::uint64_t salt) {
  Bytes data(nbytes);
  for (std::size_t i = 0; i < nbytes; ++i) data[i] = static_cast<std::uint8_t>((i * 13 + salt) % 253);
  return data;
}

void add_floats(void* out, const void* a, const void* b, std::size_t count) noexcept {
  const auto at = [](const void* p, std::size_t i) {
    float value;
    std::memcpy(&value, static_cast<const char*>(p) + i * sizeof value, sizeof value);
    return value;
  };
  for (std::size_t i = 0; i < count; ++i) {
    const float sum = at(a, i) + at(b, i);
    std::memcpy(static_cast<char*>(out) + i * sizeof sum, &sum, sizeof sum);
  }
}

// Gathers the frames of each seq into one message.
class Gatherer final : public Receiver {
 public:
  Landing landing(int, const FrameHeader& header) noexcept override {
    last = header;
    if (header.magic != kFrameMagic) return {};
    if (forget) return {};
    if (messages.size() <= header.seq) messages.resize(header.seq + 1);
    Bytes& message = messages[header.seq];
    message.resize(header.total);
    Landing landing;
    landing.dst = message.data() + header.offset;
    landing.cookie = this;
    if (reduce) {
      landing.operand = operand.data() + header.offset;
      landing.reduce = add_floats;
      landing.itemsize = sizeof(float);
    }
    return landing;
  }
  void landed(int, const FrameHeader& header, const Landing&) noexcept override {
    EXPECT_EQ(header.offset, offset) << "frames of a message come in order";
    offset = header.offset + header.nbytes == header.total ? 0 : header.offset + header.nbytes;
    if (offset == 0) ++complete;
  }
  void parked(int, const FrameHeader&, const Landing&) noexcept override {}
  bool resumed(int, const FrameHeader&, const Landing&) noexcept override { return true; }
  void returned() noexcept override {}

  std::vector<Bytes> messages;
  Bytes operand;
  FrameHeader last{};
  std::uint64_t offset = 0;
  std::size_t complete = 0;
  bool reduce = false;
  bool forget = false;
};

struct Pair {
  explicit Pair(int nranks = 2) : memory(nranks, sizeof(RegionHeader) + shm_area_size(nranks)) {
    for (int rank = 0; rank < 2; ++rank)
      ranks.push_back(make_shm_transport(memory.regions(), sizeof(RegionHeader), rank));
  }
  void post(std::uint64_t seq, const Bytes& data, FrameType type = FrameType::schedule) {
    FrameHeader header{};
    header.magic = kFrameMagic;
    header.type = type;
    header.seq = seq;
    header.nbytes = header.total = data.size();
    lent.fetch_add(1);
    ranks[0]->connect(1).post_send(header, data.data(), lent);
  }
  HeapRegions memory;
  std::vector<std::unique_ptr<Transport>> ranks;
  Lent lent{0};
};

TEST(Shm, CarriesFramesOfAllSizesInOrder) {
  Pair pair;
  const std::vector<std::size_t> sizes = {0, 1, 63, 64, 65, 4095, 100'001, kMaxFramePayload};
  std::vector<Bytes> sent;
  for (int round = 0; round < 4; ++round)
    for (const std::size_t nbytes : sizes) sent.push_back(pattern(nbytes, sent.size()));
  Gatherer gatherer;
  std::thread receiver([&] {
    while (gatherer.complete < sent.size()) pair.ranks[1]->poll(gatherer);
  });
  Gatherer nothing;
  for (std::size_t i = 0; i < sent.size(); ++i) pair.post(i, sent[i]);
  while (pair.lent.load() != 0) pair.ranks[0]->poll(nothing);
  receiver.join();
  for (std::size_t i = 0; i < sent.size(); ++i) EXPECT_TRUE(gatherer.messages[i] == sent[i]) << "message " << i;
}

TEST(Shm, ReducesWhileItLands) {
  // 200 KB frames wrap around the end of the ring at varying places.
  Pair pair;
  constexpr std::size_t kCount = 50'001;
  std::vector<float> mine(kCount);
  std::vector<float> theirs(kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    mine[i] = static_cast<float>(i % 100);
    theirs[i] = static_cast<float>(i % 7);
  }
  Bytes payload(kCount * sizeof(float));
  std::memcpy(payload.data(), theirs.data(), payload.size());
  Gatherer gatherer;
  gatherer.reduce = true;
  gatherer.operand.resize(payload.size());
  std::memcpy(gatherer.operand.data(), mine.data(), payload.size());
  for (std::uint64_t i = 0; i < 12; ++i) {
    pair.post(i, payload);
    while (pair.ranks[1]->poll(gatherer)) {
    }
    std::vector<float> got(kCount);
    std::memcpy(got.data(), gatherer.messages[i].data(), payload.size());
    for (std::size_t k = 0; k < kCount; ++k) ASSERT_EQ(got[k], mine[k] + theirs[k]) << "message " << i;
  }
}

TEST(Shm, CutsFramesThatAreLargerThanTheRingsOfALargeGroup) {
  Pair pair(100);
  const Bytes data = pattern(kMaxFramePayload, 5);
  Gatherer gatherer;
  Gatherer nothing;
  for (std::uint64_t i = 0; i < 3; ++i) pair.post(i, data);
  for (int round = 0; round < 10'000 && gatherer.complete < 3; ++round) {
    pair.ranks[1]->poll(gatherer);
    pair.ranks[0]->poll(nothing);
  }
  ASSERT_EQ(gatherer.complete, 3U);
  for (const Bytes& message : gatherer.messages) EXPECT_TRUE(message == data);
  EXPECT_EQ(pair.lent.load(), 0U);
}

TEST(Shm, MemoryOfRegionsStaysBounded) {
  EXPECT_LE(shm_area_size(2), std::size_t{3} << 20);
  EXPECT_LE(shm_area_size(128), std::size_t{9} << 20);
  for (const int nranks : {1, 2, 3, 64, 1000}) EXPECT_EQ(shm_area_size(nranks) % 64, 0U);
}

TEST(Shm, SendingNeverBlocksAndCancelReturnsWhatIsLent) {
  Pair pair;
  const Bytes data = pattern(kMaxFramePayload, 1);
  for (std::uint64_t seq = 0; seq < 20; ++seq)
    pair.post(seq % 2, data, seq < 10 ? FrameType::schedule : FrameType::data);
  const std::uint32_t queued = pair.lent.load();
  EXPECT_GE(queued, 15U);
  Endpoint& endpoint = pair.ranks[0]->connect(1);
  endpoint.cancel(FrameType::schedule, 0);
  EXPECT_LT(pair.lent.load(), queued);
  EXPECT_GE(pair.lent.load(), 10U);
  endpoint.cancel(FrameType::data, 1);
  EXPECT_GE(pair.lent.load(), 5U);
  endpoint.cancel_all();
  EXPECT_EQ(pair.lent.load(), 0U);
}

TEST(Shm, AFrameCutInTheMiddleIsFinishedFromACopy) {
  Pair pair(100);
  Bytes data = pattern(kMaxFramePayload, 5);
  const Bytes want = data;
  pair.post(0, data);
  EXPECT_EQ(pair.lent.load(), 1U);
  pair.ranks[0]->connect(1).cancel(FrameType::schedule, 0);
  EXPECT_EQ(pair.lent.load(), 0U);
  data.assign(data.size(), 0);
  Gatherer gatherer;
  Gatherer nothing;
  for (int round = 0; round < 10'000 && gatherer.complete < 1; ++round) {
    pair.ranks[1]->poll(gatherer);
    pair.ranks[0]->poll(nothing);
  }
  ASSERT_EQ(gatherer.complete, 1U);
  EXPECT_TRUE(gatherer.messages[0] == want);
}

TEST(Shm, ForgetsWhatNobodyWants) {
  Pair pair;
  Gatherer gatherer;
  gatherer.forget = true;
  pair.post(0, pattern(100, 0));
  EXPECT_TRUE(pair.ranks[1]->poll(gatherer));
  EXPECT_EQ(gatherer.complete, 1U);
  EXPECT_TRUE(gatherer.messages.empty());
}

TEST(Shm, RingsTheBellOfASleeper) {
  Pair pair;
  Gatherer gatherer;
  Failure failure;
  std::thread sleeper([&] {
    const Waited waited = wait_until(
        [&] {
          pair.ranks[1]->poll(gatherer);
          return gatherer.complete == 40;
        },
        pair.memory.regions().header(1).bell, failure, Deadline::after(30), Patience{0, 0});
    EXPECT_EQ(waited, Waited::ready);
  });
  // More than the ring holds: this side sleeps as well, until room is made.
  const Bytes data = pattern(kMaxFramePayload, 2);
  Gatherer nothing;
  for (std::uint64_t seq = 0; seq < 40; ++seq) pair.post(seq, data);
  const Waited waited = wait_until(
      [&] {
        pair.ranks[0]->poll(nothing);
        return pair.lent.load() == 0;
      },
      pair.memory.regions().header(0).bell, failure, Deadline::after(30), Patience{0, 0});
  EXPECT_EQ(waited, Waited::ready);
  sleeper.join();
}

TEST(Shm, GarbageIsReportedAndNeverReadAgain) {
  Pair pair;
  std::byte* const rings = pair.memory.regions().base[1] + sizeof(RegionHeader);
  pair.post(0, pattern(10, 0));
  std::memset(rings + 192, 0xEE, 64);  // the header of the first frame from rank 0
  Gatherer gatherer;
  pair.ranks[1]->poll(gatherer);
  EXPECT_NE(gatherer.last.magic, kFrameMagic);
  EXPECT_EQ(gatherer.complete, 0U);
  pair.post(1, pattern(10, 0));
  EXPECT_FALSE(pair.ranks[1]->poll(gatherer));
}

}  // namespace
}  // namespace pycomm
