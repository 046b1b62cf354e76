// Flat collectives against plain loops, through slots and by reading peers' memory: ranks as threads over heap memory,
// and as forked processes.
#include "pycomm/flat.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "flat/board.h"
#include "pycomm/reduce.h"

namespace pycomm {
namespace {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
constexpr std::size_t kLarge = kSanitized ? 100'003 : 300'007;  // elements: many stages
constexpr int kSizes[] = {1, 2, 3, 4, 7, 8};
constexpr FlatOptions kSlots{.single_copy = false};
constexpr FlatOptions kReading{.single_copy_from = 1};  // whenever the kind of call allows it

using Bytes = std::vector<std::byte>;

// Zeroed memory of n regions, as a group would share it.
class Memory {
 public:
  explicit Memory(int nranks) {
    regions_.nbytes = sizeof(RegionHeader) + Flat::area_size(nranks);
    for (int r = 0; r < nranks; ++r) {
      auto* memory = static_cast<std::byte*>(std::calloc(1, regions_.nbytes + 64));
      if (memory == nullptr) std::abort();
      owned_.push_back(memory);
      const auto address = reinterpret_cast<std::uintptr_t>(memory);
      regions_.base.push_back(memory + (64 - address % 64) % 64);
    }
  }
  ~Memory() {
    for (std::byte* memory : owned_) std::free(memory);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  const Regions& regions() const { return regions_; }

 private:
  Regions regions_;
  std::vector<std::byte*> owned_;
};

// n ranks, each with a thread of its own for the duration of one `each`. One failure state per rank, as processes have.
class World {
 public:
  explicit World(int nranks, FlatOptions options = {}, int refuses = -1)
      : memory_(nranks), failures_(static_cast<std::size_t>(nranks)) {
    for (int r = 0; r < nranks; ++r) {
      FlatOptions own = options;
      own.single_copy = options.single_copy && r != refuses;
      flats_.push_back(
          std::make_unique<Flat>(memory_.regions(), r, nranks, failures_[static_cast<std::size_t>(r)], own));
    }
  }
  int size() const { return static_cast<int>(flats_.size()); }
  Flat& flat(int rank) { return *flats_[static_cast<std::size_t>(rank)]; }
  Failure& failure(int rank) { return failures_[static_cast<std::size_t>(rank)]; }
  const Regions& regions() const { return memory_.regions(); }
  Doorbell& bell(int rank) { return memory_.regions().header(rank).bell; }
  void each(const std::function<void(int)>& body) {
    std::vector<std::thread> threads;
    for (int r = 0; r < size(); ++r) threads.emplace_back(body, r);
    for (std::thread& thread : threads) thread.join();
  }

 private:
  Memory memory_;
  std::vector<Failure> failures_;
  std::vector<std::unique_ptr<Flat>> flats_;
};

Descriptor describe_call(Kind kind, std::uint64_t count, DType dtype = DType::float32, ReduceOp op = ReduceOp::sum,
                         int root = -1) {
  Descriptor desc{};
  desc.kind = kind;
  desc.dtype = dtype;
  desc.op = op;
  desc.root = root;
  desc.count = count;
  return desc;
}

bool is_reducing(Kind kind) {
  return kind == Kind::allreduce || kind == Kind::reduce || kind == Kind::reduce_scatter ||
         kind == Kind::reduce_scatterv;
}
bool is_rooted(Kind kind) {
  return kind == Kind::broadcast || kind == Kind::reduce || kind == Kind::gather || kind == Kind::scatter ||
         kind == Kind::gatherv || kind == Kind::scatterv;
}
bool is_ragged(Kind kind) { return kind >= Kind::allgatherv && kind <= Kind::scatterv; }

constexpr Kind kKinds[] = {Kind::allreduce, Kind::allgather,  Kind::reduce_scatter,  Kind::alltoall,
                           Kind::broadcast, Kind::reduce,     Kind::gather,          Kind::scatter,
                           Kind::barrier,   Kind::allgatherv, Kind::reduce_scatterv, Kind::alltoallv,
                           Kind::gatherv,   Kind::scatterv};

// One call as all ranks see it, with random contents, and what must come out, computed with plain copies and the very
// reduce_many that is tested elsewhere.
struct Scenario {
  Kind kind = Kind::allreduce;
  DType dtype = DType::float32;
  ReduceOp op = ReduceOp::sum;
  int root = -1;
  int n = 1;
  std::size_t count = 0;
  std::vector<std::int64_t> counts;  // ragged
  bool in_place = false;
  std::size_t misalign = 0;  // bytes added to every buffer's start

  std::size_t item() const { return itemsize(dtype); }
  std::size_t ranks() const { return static_cast<std::size_t>(n); }
  std::size_t block(std::size_t b) const { return counts.empty() ? count : static_cast<std::size_t>(counts[b]); }
  std::size_t blocks_before(std::size_t b) const {
    std::size_t sum = 0;
    for (std::size_t i = 0; i < b; ++i) sum += block(i);
    return sum;
  }
  // alltoall(v)
  std::size_t pair(std::size_t src, std::size_t dst) const {
    return counts.empty() ? count : static_cast<std::size_t>(counts[src * ranks() + dst]);
  }
  std::size_t sent_before(std::size_t src, std::size_t dst) const {
    std::size_t sum = 0;
    for (std::size_t i = 0; i < dst; ++i) sum += pair(src, i);
    return sum;
  }
  std::size_t received_before(std::size_t src, std::size_t dst) const {
    std::size_t sum = 0;
    for (std::size_t i = 0; i < src; ++i) sum += pair(i, dst);
    return sum;
  }
  // Elements of a rank's buffers; 0 where it has none.
  std::size_t send_count(int rank) const {
    const auto r = static_cast<std::size_t>(rank);
    switch (kind) {
      case Kind::allreduce:
      case Kind::reduce:
        return count;
      case Kind::broadcast:
        return rank == root ? count : 0;
      case Kind::allgather:
      case Kind::allgatherv:
      case Kind::gather:
      case Kind::gatherv:
        return block(r);
      case Kind::scatter:
      case Kind::scatterv:
        return rank == root ? blocks_before(ranks()) : 0;
      case Kind::alltoall:
      case Kind::alltoallv:
        return sent_before(r, ranks());
      case Kind::barrier:
        return 0;
      default:
        return blocks_before(ranks());
    }
  }
  std::size_t recv_count(int rank) const {
    const auto r = static_cast<std::size_t>(rank);
    switch (kind) {
      case Kind::allreduce:
      case Kind::broadcast:
        return count;
      case Kind::reduce:
        return rank == root ? count : 0;
      case Kind::allgather:
      case Kind::allgatherv:
        return blocks_before(ranks());
      case Kind::gather:
      case Kind::gatherv:
        return rank == root ? blocks_before(ranks()) : 0;
      case Kind::alltoall:
      case Kind::alltoallv:
        return received_before(ranks(), r);
      case Kind::barrier:
        return 0;
      default:
        return block(r);
    }
  }
  Descriptor desc(int rank) const {
    Descriptor d = describe_call(kind, count, dtype, op, root);
    if (op == ReduceOp::premul_sum) d.factor = 2.0 + rank;
    for (const std::int64_t c : counts) d.counts = d.counts * 31 + static_cast<std::uint64_t>(c) + 7;
    return d;
  }
  std::string text() const {
    return describe(desc(0)) + " n=" + std::to_string(n) + (in_place ? " in place" : "") +
           " misalign=" + std::to_string(misalign);
  }
};

// Small integers that depend on rank and position, encoded in the type.
Bytes values(const Scenario& s, int rank, std::size_t count) {
  Bytes out(count * s.item());
  for (std::size_t i = 0; i < count; ++i) {
    const auto v = static_cast<unsigned>((i * 7 + static_cast<std::size_t>(rank) * 3 + i / 64) % 5);
    std::byte* at = out.data() + i * s.item();
    const auto put = [&](auto value) { std::memcpy(at, &value, sizeof value); };
    constexpr std::uint16_t kHalf[] = {0x0000, 0x3c00, 0x4000, 0x4200, 0x4400};
    constexpr std::uint16_t kBrain[] = {0x0000, 0x3f80, 0x4000, 0x4040, 0x4080};
    constexpr std::uint8_t kE4m3[] = {0x00, 0x38, 0x40, 0x44, 0x48};
    constexpr std::uint8_t kE5m2[] = {0x00, 0x3c, 0x40, 0x42, 0x44};
    switch (s.dtype) {
      case DType::float64:
        put(static_cast<double>(v));
        break;
      case DType::float32:
        put(static_cast<float>(v));
        break;
      case DType::float16:
        put(kHalf[v]);
        break;
      case DType::bfloat16:
        put(kBrain[v]);
        break;
      case DType::float8_e4m3fn:
        put(kE4m3[v]);
        break;
      case DType::float8_e5m2:
        put(kE5m2[v]);
        break;
      case DType::boolean:
        put(static_cast<std::uint8_t>(v % 2));
        break;
      default: {
        const std::uint64_t wide = v;
        std::memcpy(at, &wide, s.item());
      }
    }
  }
  return out;
}

void append(Bytes& out, const Bytes& from, std::size_t at, std::size_t nbytes) {
  out.insert(out.end(), from.begin() + static_cast<std::ptrdiff_t>(at),
             from.begin() + static_cast<std::ptrdiff_t>(at + nbytes));
}

// The result at `rank`, from everybody's contributions.
Bytes expected(const Scenario& s, const std::vector<Bytes>& sent, int rank) {
  const auto r = static_cast<std::size_t>(rank);
  const auto root = static_cast<std::size_t>(s.root < 0 ? 0 : s.root);
  Bytes out;
  if (s.recv_count(rank) == 0) return out;
  if (is_reducing(s.kind)) {
    const bool by_block = s.kind == Kind::reduce_scatter || s.kind == Kind::reduce_scatterv;
    const std::size_t at = by_block ? s.blocks_before(r) * s.item() : 0;
    const std::size_t count = s.recv_count(rank);
    std::vector<Bytes> parts;
    std::vector<const void*> inputs;
    for (int p = 0; p < s.n; ++p) {
      Bytes& part = parts.emplace_back();
      append(part, sent[static_cast<std::size_t>(p)], at, count * s.item());
      if (s.op == ReduceOp::premul_sum) scale(s.dtype, part.data(), part.data(), count, s.desc(p).factor);
    }
    for (const Bytes& part : parts) inputs.push_back(part.data());
    out.resize(count * s.item());
    reduce_many_fn(s.dtype, s.op)(out.data(), inputs.data(), s.n, count, s.op == ReduceOp::avg ? s.n : 1);
    return out;
  }
  switch (s.kind) {
    case Kind::broadcast:
      return sent[root];
    case Kind::scatter:
    case Kind::scatterv:
      append(out, sent[root], s.blocks_before(r) * s.item(), s.block(r) * s.item());
      break;
    case Kind::alltoall:
    case Kind::alltoallv:
      for (std::size_t p = 0; p < s.ranks(); ++p) {
        append(out, sent[p], s.sent_before(p, r) * s.item(), s.pair(p, r) * s.item());
      }
      break;
    default:  // the gathers
      for (const Bytes& part : sent) out.insert(out.end(), part.begin(), part.end());
  }
  return out;
}

// Where the shared buffer of an in-place call has its send and recv parts, in elements.
struct InPlace {
  std::size_t send_at = 0, recv_at = 0;
};
InPlace in_place_layout(const Scenario& s, int rank) {
  const auto r = static_cast<std::size_t>(rank);
  switch (s.kind) {
    case Kind::allgather:
    case Kind::allgatherv:
      return {s.blocks_before(r), 0};
    case Kind::gather:
    case Kind::gatherv:
      return {rank == s.root ? s.blocks_before(r) : 0, 0};
    case Kind::scatter:
    case Kind::scatterv:
      return {0, rank == s.root ? s.blocks_before(r) : 0};
    case Kind::reduce_scatter:
      return {0, s.blocks_before(r)};
    default:
      return {};
  }
}

// A rank's buffers with guard bytes around, and the call on them.
class Buffers {
 public:
  Buffers(const Scenario& s, int rank, const Bytes& sent)
      : s_(s), rank_(rank), send_bytes_(s.send_count(rank) * s.item()), recv_bytes_(s.recv_count(rank) * s.item()) {
    const InPlace at = s.in_place ? in_place_layout(s, rank) : InPlace{};
    const std::size_t front = kGuard + s.misalign;
    send_at_ = front + at.send_at * s.item();
    recv_at_ = front + at.recv_at * s.item();
    a_.assign(std::max(send_at_ + send_bytes_, s.in_place ? recv_at_ + recv_bytes_ : 0) + kGuard, std::byte{0xa5});
    if (!s.in_place) b_.assign(recv_at_ + recv_bytes_ + kGuard, std::byte{0xa5});
    std::copy(sent.begin(), sent.end(), a_.begin() + static_cast<std::ptrdiff_t>(send_at_));
    before_ = a_;
  }
  FlatCall call() {
    FlatCall call;
    call.desc = s_.desc(rank_);
    call.send = send_bytes_ != 0 || s_.in_place ? a_.data() + send_at_ : nullptr;
    Bytes& to = s_.in_place ? a_ : b_;
    call.recv = recv_bytes_ != 0 ? to.data() + recv_at_ : nullptr;
    call.counts = s_.counts.empty() ? nullptr : s_.counts.data();
    return call;
  }
  void check(const Bytes& want) const {
    const Bytes& got = s_.in_place ? a_ : b_;
    const auto result = got.begin() + static_cast<std::ptrdiff_t>(recv_at_);
    const auto wrong = std::mismatch(want.begin(), want.end(), result).first - want.begin();
    ASSERT_EQ(static_cast<std::size_t>(wrong), want.size()) << s_.text() << ": first wrong byte, on rank " << rank_;
    for (std::size_t i = 0; i < recv_at_ && !s_.in_place; ++i) ASSERT_EQ(got[i], std::byte{0xa5}) << s_.text();
    for (std::size_t i = got.size() - kGuard; i < got.size(); ++i) ASSERT_EQ(got[i], std::byte{0xa5}) << s_.text();
    if (!s_.in_place) {
      ASSERT_TRUE(a_ == before_) << s_.text() << ": send was modified";
    }
  }
  // Nothing at all was written.
  bool untouched() const {
    return a_ == before_ && std::all_of(b_.begin(), b_.end(), [](std::byte byte) { return byte == std::byte{0xa5}; });
  }

 private:
  static constexpr std::size_t kGuard = 64;
  const Scenario& s_;
  int rank_;
  std::size_t send_bytes_, recv_bytes_, send_at_, recv_at_;
  Bytes a_, b_, before_;
};

// What every rank sends, by scenario.
std::vector<std::vector<Bytes>> all_values(const std::vector<Scenario>& scenarios) {
  std::vector<std::vector<Bytes>> sent(scenarios.size());
  for (std::size_t i = 0; i < scenarios.size(); ++i) {
    for (int r = 0; r < scenarios[i].n; ++r) sent[i].push_back(values(scenarios[i], r, scenarios[i].send_count(r)));
  }
  return sent;
}

// Runs the scenarios one after the other on one rank and checks its results.
void run_rank(Flat& flat, int rank, const std::vector<Scenario>& scenarios, const std::vector<std::vector<Bytes>>& sent,
              std::uint64_t first_seq = 1) {
  for (std::size_t i = 0; i < scenarios.size(); ++i) {
    Buffers buffers(scenarios[i], rank, sent[i][static_cast<std::size_t>(rank)]);
    const Status status = flat.run(buffers.call(), first_seq + i, Deadline::after(60));
    ASSERT_TRUE(status.ok()) << scenarios[i].text() << ": " << status.message();
    buffers.check(expected(scenarios[i], sent[i], rank));
  }
}

void run_all(World& world, const std::vector<Scenario>& scenarios, std::uint64_t first_seq = 1) {
  const std::vector<std::vector<Bytes>> sent = all_values(scenarios);
  world.each([&](int rank) { run_rank(world.flat(rank), rank, scenarios, sent, first_seq); });
}

Scenario make(Kind kind, int n, std::size_t count, bool in_place, DType dtype = DType::float32,
              ReduceOp op = ReduceOp::sum) {
  Scenario s;
  s.kind = kind;
  s.n = n;
  s.dtype = dtype;
  s.op = op;
  s.root =
      is_rooted(kind) ? static_cast<int>((count + static_cast<std::size_t>(kind)) % static_cast<std::size_t>(n)) : -1;
  s.in_place = in_place;
  if (!is_ragged(kind)) {
    s.count = count;
    return s;
  }
  // Blocks of differing sizes, some empty, around `count`.
  const std::size_t table = kind == Kind::alltoallv ? s.ranks() * s.ranks() : s.ranks();
  for (std::size_t b = 0; b < table; ++b) s.counts.push_back(b % 3 == 1 ? 0 : static_cast<std::int64_t>(count + b % 4));
  return s;
}

bool has_in_place(Kind kind) { return kind != Kind::barrier && kind != Kind::reduce_scatterv; }

std::vector<Scenario> every_kind(int n, std::size_t count) {
  std::vector<Scenario> scenarios;
  for (const Kind kind : kKinds) {
    for (const bool in_place : {false, true}) {
      if (!in_place || has_in_place(kind)) scenarios.push_back(make(kind, n, count, in_place));
    }
  }
  return scenarios;
}

class FlatKinds : public ::testing::TestWithParam<std::tuple<int, FlatOptions>> {};

TEST_P(FlatKinds, EveryKindEveryCountInAndOutOfPlace) {
  const int n = std::get<0>(GetParam());
  World world(n, std::get<1>(GetParam()));
  const auto around = static_cast<std::size_t>(n);
  std::vector<Scenario> scenarios;
  for (const Kind kind : kKinds) {
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, around - 1, around, around + 1, std::size_t{997}}) {
      for (const bool in_place : {false, true}) {
        if (!in_place || has_in_place(kind)) scenarios.push_back(make(kind, n, count, in_place));
      }
    }
  }
  run_all(world, scenarios);
}

TEST_P(FlatKinds, ArraysOfManyStages) {
  const int n = std::get<0>(GetParam());
  World world(n, std::get<1>(GetParam()));
  run_all(world, every_kind(n, kLarge / static_cast<std::size_t>(n)));
}

TEST_P(FlatKinds, EveryTypeAndOp) {
  const int n = std::get<0>(GetParam());
  World world(n, std::get<1>(GetParam()));
  std::vector<Scenario> scenarios;
  for (int d = 0; d <= static_cast<int>(DType::boolean); ++d) {
    for (int o = 0; o <= static_cast<int>(ReduceOp::lor); ++o) {
      const auto dtype = static_cast<DType>(d);
      const auto op = static_cast<ReduceOp>(o);
      if (reduce_many_fn(dtype, op) == nullptr) continue;
      // Threads beyond cores, and sanitizers, cost time; a third will do there.
      if ((n > 4 || kSanitized) && (d + o) % 3 != 0) continue;
      for (const Kind kind : {Kind::allreduce, Kind::reduce_scatter, Kind::reduce}) {
        for (const std::size_t count : {std::size_t{3}, std::size_t{301}, std::size_t{33'001}}) {
          if (count > 301 && d % 4 != o % 4) continue;  // a quarter of the grid in many stages
          Scenario s = make(kind, n, count, (d + o) % 2 == 0, dtype, op);
          s.misalign = static_cast<std::size_t>(d + o) % 3;
          scenarios.push_back(s);
        }
      }
    }
  }
  run_all(world, scenarios);
}

std::string name_of(const ::testing::TestParamInfo<std::tuple<int, FlatOptions>>& info) {
  return std::to_string(std::get<0>(info.param)) + (std::get<1>(info.param).single_copy ? "Reading" : "Slots");
}
INSTANTIATE_TEST_SUITE_P(Ranks, FlatKinds,
                         ::testing::Combine(::testing::ValuesIn(kSizes), ::testing::Values(kSlots, kReading)), name_of);

TEST(Flat, RandomCallsInSequence) {
  std::mt19937 random(20240607);
  const auto below = [&](std::size_t bound) { return static_cast<std::size_t>(random() % bound); };
  constexpr FlatOptions kOftenReading{.single_copy_from = 100};
  for (const int n : {2, 3, 5}) {
    World world(n, n == 2 ? FlatOptions{.spare_cores = 0} : kOftenReading);
    std::vector<Scenario> scenarios;
    for (int i = 0; i < (kSanitized ? 150 : 2000); ++i) {
      const Kind kind = kKinds[below(std::size(kKinds))];
      const std::size_t count = below(4) == 0 ? below(20'000) : below(40);
      Scenario s = make(kind, n, count, has_in_place(kind) && below(2) == 0);
      s.misalign = below(64);
      for (std::int64_t& c : s.counts) c = static_cast<std::int64_t>(below(count + 1));
      scenarios.push_back(s);
    }
    run_all(world, scenarios);
  }
}

TEST(Flat, ArraysThatBypassTheCaches) {
  World world(3);
  const std::size_t count = 1'100'003;  // elements of a transfer: just beyond where that begins
  std::vector<Scenario> scenarios;
  for (const Kind kind : {Kind::allreduce, Kind::broadcast, Kind::allgather, Kind::reduce_scatter}) {
    Scenario s = make(kind, 3, count, false);
    s.misalign = 4;
    scenarios.push_back(s);
  }
  run_all(world, scenarios);
}

TEST(Flat, AlltoallvInPlaceWithLopsidedCounts) {
  World world(3, kReading);
  Scenario s;
  s.kind = Kind::alltoallv;
  s.n = 3;
  s.in_place = true;
  s.counts = {5, 70'000, 0, 1, 2, 60'000, 40'000, 3, 9};
  run_all(world, {s});
}

class FlatWays : public ::testing::TestWithParam<FlatOptions> {};
INSTANTIATE_TEST_SUITE_P(Ways, FlatWays, ::testing::Values(kSlots, kReading));

TEST_P(FlatWays, ResultsHaveTheSameBitsEverywhere) {
  const int n = 4;
  World world(n, GetParam());
  for (const std::size_t count : {std::size_t{5}, std::size_t{5'000}, std::size_t{50'000}}) {
    std::vector<std::vector<float>> out(n), in(n);
    for (int r = 0; r < n; ++r) {
      std::mt19937 random(static_cast<unsigned>(r));
      std::normal_distribution<float> normal(0.0F, 1e3F);
      for (std::size_t i = 0; i < count; ++i) in[static_cast<std::size_t>(r)].push_back(normal(random));
      out[static_cast<std::size_t>(r)].resize(count);
    }
    const auto original = in;
    for (const bool in_place : {false, true}) {
      world.each([&](int rank) {
        const auto r = static_cast<std::size_t>(rank);
        FlatCall call;
        call.desc = describe_call(Kind::allreduce, count);
        call.send = reinterpret_cast<const std::byte*>(in[r].data());
        call.recv = reinterpret_cast<std::byte*>(in_place ? in[r].data() : out[r].data());
        const Status status = world.flat(rank).run(call, 1, Deadline::after(60));
        ASSERT_TRUE(status.ok()) << status.message();
      });
    }
    for (std::size_t i = 0; i < count; ++i) {
      float sum = original[0][i];
      for (std::size_t r = 1; r < n; ++r) sum += original[r][i];
      for (std::size_t r = 0; r < n; ++r) {
        ASSERT_EQ(out[r][i], sum) << "rank " << r << " element " << i;
        ASSERT_EQ(in[r][i], sum) << "in place, rank " << r << " element " << i;
      }
    }
  }
}

// Calls that differ in one thing each; rank 1 makes the second one.
struct Dispute {
  const char* name;
  Scenario usual, odd;
  const char* usual_text;
  const char* odd_text;
};

std::vector<Dispute> disputes(int n) {
  const Scenario sum = make(Kind::allreduce, n, 1000, false);
  const auto with = [](Scenario s, const std::function<void(Scenario&)>& change) {
    change(s);
    return s;
  };
  Scenario rooted = make(Kind::broadcast, n, 40'000, true);
  rooted.root = 0;
  Scenario ragged = make(Kind::allgatherv, n, 100, false);
  return {
      {"count", sum, with(sum, [](Scenario& s) { s.count = 1001; }), "allreduce float32 sum count=1000",
       "allreduce float32 sum count=1001"},
      {"small count", make(Kind::allreduce, n, 1, true), make(Kind::allreduce, n, 2, true), "count=1", "count=2"},
      {"dtype", sum, with(sum, [](Scenario& s) { s.dtype = DType::int32; }), "allreduce float32", "allreduce int32"},
      {"op", sum, with(sum, [](Scenario& s) { s.op = ReduceOp::max; }), "float32 sum", "float32 max"},
      {"kind", sum, with(sum, [](Scenario& s) { s.kind = Kind::reduce_scatter; }), "allreduce", "reduce_scatter"},
      {"root", rooted, with(rooted, [](Scenario& s) { s.root = 1; }), "root=0", "root=1"},
      {"counts", ragged, with(ragged, [](Scenario& s) { s.counts[0] += 1; }), "allgatherv", "counts#"},
      {"size of stages", make(Kind::alltoall, n, 50'000, false), make(Kind::barrier, n, 0, false), "alltoall",
       "barrier"},
  };
}

TEST_P(FlatWays, RanksThatDisagreeAllHearOfItAndGoOn) {
  for (const int n : {2, 4}) {
    World world(n, GetParam());
    std::uint64_t seq = 17;
    for (const Dispute& dispute : disputes(n)) {
      std::vector<std::string> messages(static_cast<std::size_t>(n));
      world.each([&](int rank) {
        const Scenario& s = rank == 1 ? dispute.odd : dispute.usual;
        Buffers buffers(s, rank, values(s, rank, s.send_count(rank)));
        const Status status = world.flat(rank).run(buffers.call(), seq, Deadline::after(60));
        ASSERT_EQ(status.code(), Code::mismatch) << dispute.name << ": " << status.message();
        EXPECT_TRUE(buffers.untouched()) << dispute.name << ": rank " << rank;
        messages[static_cast<std::size_t>(rank)] = status.message();
        if (n > 2) {
          EXPECT_EQ(status.ranks(), std::vector<int>{1}) << dispute.name;
        }
      });
      for (const std::string& message : messages) EXPECT_EQ(message, messages[0]) << dispute.name;
      EXPECT_NE(messages[0].find("operation " + std::to_string(seq)), std::string::npos) << messages[0];
      EXPECT_NE(messages[0].find(dispute.usual_text), std::string::npos) << messages[0];
      EXPECT_NE(messages[0].find(dispute.odd_text), std::string::npos) << messages[0];
      EXPECT_NE(messages[0].find("rank 1: "), std::string::npos) << messages[0];
      run_all(world, {make(Kind::allreduce, n, 10'000, true), make(Kind::allgather, n, 3, false)}, seq + 1);
      seq += 3;
    }
  }
}

TEST(Flat, OperationNumbersThatDifferAreAMismatch) {
  World world(3);
  world.each([&](int rank) {
    FlatCall call;
    call.desc = describe_call(Kind::barrier, 0);
    const Status status = world.flat(rank).run(call, rank == 2 ? 6 : 5, Deadline::after(60));
    ASSERT_EQ(status.code(), Code::mismatch);
    EXPECT_NE(status.message().find("operation 5, barrier"), std::string::npos) << status.message();
    EXPECT_NE(status.message().find("operation 6, barrier"), std::string::npos) << status.message();
  });
}

TEST(Flat, FactorsMayDiffer) {
  World world(3);
  run_all(world, {make(Kind::allreduce, 3, 20'000, false, DType::float32, ReduceOp::premul_sum)});
}

TEST(Flat, UndefinedReductionIsUnsupportedOnAllRanks) {
  for (const int n : {1, 2}) {
    World world(n);
    world.each([&](int rank) {
      Scenario s = make(Kind::allreduce, n, 10, false, DType::float32, ReduceOp::bxor);
      Buffers buffers(s, rank, values(s, rank, 10));
      EXPECT_EQ(world.flat(rank).run(buffers.call(), 1, Deadline::after(60)).code(), Code::unsupported);
      EXPECT_TRUE(buffers.untouched());
    });
    run_all(world, {make(Kind::allreduce, n, 10, false)}, 2);
  }
}

TEST(Flat, DeadlineNamesWhoIsMissing) {
  World world(4);
  world.each([&](int rank) {
    if (rank == 1 || rank == 3) return;
    FlatCall call;
    call.desc = describe_call(Kind::barrier, 0);
    const std::int64_t begin = now_ns();
    const Status status = world.flat(rank).run(call, 9, Deadline::after(0.2));
    const double waited_s = static_cast<double>(now_ns() - begin) * 1e-9;
    EXPECT_EQ(status.code(), Code::deadline);
    EXPECT_EQ(status.ranks(), (std::vector<int>{1, 3}));
    EXPECT_NE(status.message().find("operation 9 (barrier)"), std::string::npos) << status.message();
    EXPECT_NE(status.message().find("ranks 1, 3 did not arrive"), std::string::npos) << status.message();
    EXPECT_GE(waited_s, 0.19);
    EXPECT_LT(waited_s, 5.0);
  });
}

TEST(Flat, FailureWakesSleepersWithItsCause) {
  World world(3);
  std::thread breaker([&] {
    for (int rank = 0; rank < 2; ++rank) {  // rank 2 never comes; let the others fall asleep first
      while (world.bell(rank).sleepers.load() == 0) std::this_thread::yield();
      world.failure(rank).set({Code::peer_lost, "rank 2 is gone", {2}});
      world.bell(rank).ring();
    }
  });
  world.each([&](int rank) {
    if (rank == 2) return;
    FlatCall call;
    call.desc = describe_call(Kind::barrier, 0);
    const Status status = world.flat(rank).run(call, 1, Deadline::after(60));
    EXPECT_EQ(status.code(), Code::peer_lost);
    EXPECT_EQ(status.message(), "rank 2 is gone");
    EXPECT_EQ(world.flat(rank).run(call, 2, Deadline::after(60)).code(), Code::peer_lost);  // and again at once
  });
  breaker.join();
}

TEST(Flat, SleepersAreWokenByWhoComesLate) {
  World world(3);
  for (std::uint64_t seq = 1; seq <= 5; ++seq) {
    world.each([&](int rank) {
      if (rank == static_cast<int>(seq % 3)) {
        for (int peer = 0; peer < 3; ++peer) {
          while (peer != rank && world.bell(peer).sleepers.load() == 0) std::this_thread::yield();
        }
      }
      FlatCall call;
      call.desc = describe_call(Kind::barrier, 0);
      const std::int64_t begin = now_ns();
      const Status status = world.flat(rank).run(call, seq, Deadline::after(60));
      EXPECT_TRUE(status.ok()) << status.message();
      EXPECT_LT(static_cast<double>(now_ns() - begin) * 1e-9, 20.0);
    });
  }
}

// The stage that `rank` has shown last, as its peers see it.
std::uint64_t shown(const Regions& regions, int rank) {
  const auto* area =
      reinterpret_cast<const flat::Area*>(regions.base[static_cast<std::size_t>(rank)] + sizeof(RegionHeader));
  return std::max(area->lines[0].line.stage.load(), area->lines[1].line.stage.load());
}

// Stages of one allgather after others have settled how it is done.
std::uint64_t stages_of_allgather(World& world, std::uint64_t seq) {
  const std::uint64_t before = shown(world.regions(), 0);
  run_all(world, {make(Kind::allgather, world.size(), 100'000, false)}, seq);
  return shown(world.regions(), 0) - before;
}

TEST(Flat, OneRankThatRefusesKeepsAllFromReading) {
  World reading(3, kReading);
  World refusing(3, kReading, 1);
  run_all(reading, every_kind(3, 1000));
  run_all(refusing, every_kind(3, 1000));
  EXPECT_EQ(stages_of_allgather(reading, 100), 2U);   // offer, all have read
  EXPECT_EQ(stages_of_allgather(refusing, 100), 4U);  // slots' worth of 128 KiB
}

#if defined(SYS_memfd_secret)
// Memory that this process reads, and the kernel for no one.
TEST(Flat, MemoryThatOthersCannotReadGoesThroughSlots) {
  constexpr std::size_t kBytes = std::size_t{1} << 20;
  const int fd = static_cast<int>(syscall(SYS_memfd_secret, 0));
  if (fd < 0) GTEST_SKIP() << "this kernel has no memfd_secret";
  ASSERT_EQ(ftruncate(fd, kBytes), 0);
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (memory == MAP_FAILED) GTEST_SKIP() << "no memory may be locked";
  std::memset(memory, 42, kBytes);
  World world(2, kReading);
  std::vector<Bytes> got(2, Bytes(2 * kBytes));
  for (std::uint64_t seq = 1; seq <= 2; ++seq) {
    world.each([&](int rank) {
      const auto r = static_cast<std::size_t>(rank);
      const Bytes open(kBytes, std::byte{7});
      FlatCall call;
      call.desc = describe_call(Kind::allgather, kBytes, DType::uint8);
      call.send = rank == 0 ? static_cast<const std::byte*>(memory) : open.data();
      call.recv = got[r].data();
      const Status status = world.flat(rank).run(call, seq, Deadline::after(60));
      ASSERT_TRUE(status.ok()) << status.message();
      EXPECT_EQ(got[r].front(), std::byte{42});
      EXPECT_EQ(got[r][kBytes - 1], std::byte{42});
      EXPECT_EQ(got[r].back(), std::byte{7});
    });
  }
  EXPECT_EQ(stages_of_allgather(world, 3), 2U);  // that memory, not these ranks
  munmap(memory, kBytes);
}
#endif

// Rank 1 has shown its last stage and leaves at its deadline, while rank 0 may still be reading its memory.
TEST(Flat, WhoLeavesAtItsDeadlineIsNotReadAnyMore) {
  constexpr std::size_t kBytes = std::size_t{64} << 20;
  World world(2);
  run_all(world, {make(Kind::gather, 2, 1 << 20, false)});
  std::vector<Bytes> sent(2, Bytes(kBytes, std::byte{1}));  // of its own for each: a rank copies its own by itself
  const std::unique_ptr<std::byte[]> recv(new std::byte[2 * kBytes]);  // not touched yet: reading takes its time
  world.each([&](int rank) {
    Bytes& send = sent[static_cast<std::size_t>(rank)];
    FlatCall call;
    call.desc = describe_call(Kind::gather, kBytes, DType::uint8, ReduceOp::sum, 0);
    call.send = send.data();
    if (rank == 0) call.recv = recv.get();
    const Status status = world.flat(rank).run(call, 2, Deadline::after(rank == 0 ? 60 : 0.004));
    if (rank == 1 && !status.ok()) {
      EXPECT_EQ(status.code(), Code::deadline);
      std::fill(send.begin() + kBytes / 2, send.end(), std::byte{2});
      std::this_thread::sleep_for(std::chrono::milliseconds(500));  // news travels slower than memory
      world.failure(0).set(status);
      world.bell(0).ring();
    }
    if (rank == 0 && status.ok()) {
      EXPECT_EQ(recv[2 * kBytes - 1], std::byte{1});
    }
  });
}

TEST(Flat, Descriptions) {
  EXPECT_EQ(describe(describe_call(Kind::barrier, 0)), "barrier");
  EXPECT_EQ(describe(describe_call(Kind::allreduce, 7, DType::bfloat16, ReduceOp::avg)),
            "allreduce bfloat16 avg count=7");
  EXPECT_EQ(describe(describe_call(Kind::broadcast, 7, DType::boolean, ReduceOp::sum, 2)),
            "broadcast bool count=7 root=2");
  Descriptor broken = describe_call(static_cast<Kind>(77), 1);
  EXPECT_NE(describe(broken).find("unknown(77)"), std::string::npos);
}

#if !defined(__SANITIZE_THREAD__)  // TSan does not follow memory shared between processes
// Regions that forked processes share.
class SharedMemory {
 public:
  explicit SharedMemory(int nranks) {
    regions_.nbytes = sizeof(RegionHeader) + Flat::area_size(nranks);
    for (int r = 0; r < nranks; ++r) {
      void* memory = mmap(nullptr, regions_.nbytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
      if (memory == MAP_FAILED) std::abort();
      regions_.base.push_back(static_cast<std::byte*>(memory));
    }
  }
  ~SharedMemory() {
    for (std::byte* base : regions_.base) munmap(base, regions_.nbytes);
  }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  const Regions& regions() const { return regions_; }

 private:
  Regions regions_;
};

// Runs body() in a process of its own, which ends with 0 when no check in it failed.
pid_t start_process(const std::function<void()>& body) {
  const pid_t child = fork();
  if (child != 0) return child;
  body();
  std::_Exit(::testing::Test::HasFailure() ? 1 : 0);
}

void expect_success(pid_t child) {
  int how = -1;
  ASSERT_EQ(waitpid(child, &how, 0), child);
  EXPECT_EQ(how, 0);
}

TEST_P(FlatWays, ForkedProcessesOverSharedMemory) {
  constexpr int kRanks = 3;
  const SharedMemory memory(kRanks);
  std::vector<Scenario> scenarios = every_kind(kRanks, 30'011);
  for (std::size_t i = 0; i < 100; ++i) scenarios.push_back(make(Kind::allreduce, kRanks, i * i, true, DType::int64));
  const std::vector<std::vector<Bytes>> sent = all_values(scenarios);
  std::vector<pid_t> children;
  for (int r = 0; r < kRanks; ++r) {
    children.push_back(start_process([&, r] {
      const Failure failure;
      Flat flat(memory.regions(), r, kRanks, failure, GetParam());
      run_rank(flat, r, scenarios, sent);
    }));
  }
  for (const pid_t child : children) expect_success(child);
}

// Rank 1 dies when it has shown where its memory is, before rank 0 reads it.
TEST(Flat, MemoryOfTheDeadIsNotRead) {
  const SharedMemory memory(2);
  const std::vector<Scenario> scenarios = {make(Kind::allgather, 2, 300'000, false)};
  const std::vector<std::vector<Bytes>> sent = all_values(scenarios);
  const pid_t child = start_process([&] {
    const Failure failure;
    Flat flat(memory.regions(), 1, 2, failure, kReading);
    run_rank(flat, 1, scenarios, sent, 1);
    run_rank(flat, 1, scenarios, sent, 2);
  });
  const Failure failure;  // nobody tells
  Flat flat(memory.regions(), 0, 2, failure, kReading);
  run_rank(flat, 0, scenarios, sent, 1);
  const std::uint64_t done = shown(memory.regions(), 0);
  while (shown(memory.regions(), 1) == done) std::this_thread::yield();
  ASSERT_EQ(kill(child, SIGKILL), 0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  Buffers buffers(scenarios[0], 0, sent[0][0]);
  const Status status = flat.run(buffers.call(), 2, Deadline::after(60));
  EXPECT_EQ(status.code(), Code::peer_lost) << status.message();
  EXPECT_EQ(status.ranks(), std::vector<int>{1});
}
#endif

}  // namespace
}  // namespace pycomm
