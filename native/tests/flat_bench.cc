// How fast the flat collectives are: ranks are forked processes over shared memory, as in a real job.
//
//   flat_bench [ranks=2] [largest bytes=67108864] [kind ...]
//
// Prints, per kind and size, the time of one operation in us: best and median of many batches, as seen by rank 0, and
// the bytes that the group read from and wrote to its buffers per second at the best. Size is that of the whole array
// (n blocks for allgather, reduce_scatter, alltoall). Every result is checked once. From 64 KiB on, batches through
// slots only take turns with those that may go past them; the last column is the median of slots over the other.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "pycomm/flat.h"

namespace {

using namespace pycomm;

struct Case {
  const char* name;
  Kind kind;
  bool by_block;  // count is that of one rank's block
  bool in_place;
  bool is_rooted = false;
};

constexpr Case kCases[] = {
    {"allreduce", Kind::allreduce, false, false},  {"allreduce_ip", Kind::allreduce, false, true},
    {"allgather", Kind::allgather, true, false},   {"reduce_scatter", Kind::reduce_scatter, true, false},
    {"alltoall", Kind::alltoall, true, false},     {"broadcast", Kind::broadcast, false, true, true},
    {"reduce", Kind::reduce, false, false, true},  {"gather", Kind::gather, true, false, true},
    {"scatter", Kind::scatter, true, false, true},
};

std::byte* map_shared(std::size_t nbytes) {
  void* memory = mmap(nullptr, nbytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("mmap");
    std::exit(1);
  }
  return static_cast<std::byte*>(memory);
}

// On huge pages, as NumPy has it for large arrays; touched.
float* buffer(std::size_t elements) {
  constexpr std::size_t kHuge = std::size_t{2} << 20;
  const std::size_t nbytes = (elements * sizeof(float) + kHuge - 1) / kHuge * kHuge;
  void* memory = std::aligned_alloc(kHuge, nbytes);
  if (memory == nullptr) std::abort();
  if (nbytes > kHuge) madvise(memory, nbytes, MADV_HUGEPAGE);
  std::memset(memory, 0, nbytes);
  return static_cast<float*>(memory);
}

void must(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "flat_bench: %s\n", status.message().c_str());
  std::_Exit(1);
}

class Bench {
 public:
  Bench(const std::array<Regions, 2>& regions, int rank, int nranks, std::size_t largest)
      : spare_cores_(static_cast<int>(std::thread::hardware_concurrency()) - nranks),
        slots_(regions[0], rank, nranks, failure_, {.spare_cores = spare_cores_, .single_copy = false}),
        flat_(regions[1], rank, nranks, failure_, {.spare_cores = spare_cores_, .single_copy_from = kSlotsOnly}),
        rank_(rank),
        n_(static_cast<std::size_t>(nranks)),
        elements_(largest / sizeof(float) + n_),
        send_(buffer(elements_)),
        recv_(buffer(elements_)) {}

  void measure(const Case& c, std::size_t nbytes) {
    const std::size_t total = std::max<std::size_t>(nbytes / sizeof(float), c.by_block ? n_ : 1);
    FlatCall call;
    call.desc = {};
    call.desc.kind = c.kind;
    call.desc.dtype = DType::float32;
    call.desc.op = ReduceOp::sum;
    call.desc.root = c.is_rooted ? 0 : -1;
    call.desc.count = c.by_block ? total / n_ : total;
    for (std::size_t i = 0; i < total; ++i) send_[i] = static_cast<float>((i + static_cast<std::size_t>(rank_)) % 64);
    call.send = reinterpret_cast<const std::byte*>(send_);
    call.recv = reinterpret_cast<std::byte*>(c.in_place ? send_ : recv_);
    run(flat_, call);
    check(c, call);
    if (c.in_place) std::fill_n(send_, elements_, 0.0F);  // repeated sums must not overflow

    std::size_t repeats = nbytes <= 4096 ? 2000 : std::max<std::size_t>(2, (8 << 20) / nbytes);
    const std::size_t batches = nbytes >= (16 << 20) ? 7 : 21;
    repeats = std::min<std::size_t>(repeats, 2000);
    std::vector<double> us;
    std::vector<double> slots_us;
    for (std::size_t b = 0; b <= batches; ++b) {
      us.push_back(batch(flat_, call, repeats));
      if (nbytes >= kSlotsOnly) slots_us.push_back(batch(slots_, call, repeats));
      if (b == 0) us.clear(), slots_us.clear();
    }
    std::sort(us.begin(), us.end());
    std::sort(slots_us.begin(), slots_us.end());
    if (rank_ == 0) {
      const double moved = 2.0 * static_cast<double>(n_) * static_cast<double>(nbytes);
      const double median = us[us.size() / 2];
      std::printf("%-15s %10zu %12.2f %12.2f %10.2f", c.name, nbytes, us.front(), median, moved / us.front() / 1e3);
      if (!slots_us.empty())
        std::printf(" %10.2f %10.2f", slots_us.front() / us.front(), slots_us[slots_us.size() / 2] / median);
      std::printf("\n");
      std::fflush(stdout);
    }
  }

 private:
  void run(Flat& flat, const FlatCall& call) { must(flat.run(call, seq_++, Deadline::after(60))); }

  // Time of one of `repeats` operations, in us.
  double batch(Flat& flat, const FlatCall& call, std::size_t repeats) {
    FlatCall barrier;
    barrier.desc = {};
    barrier.desc.kind = Kind::barrier;
    barrier.desc.root = -1;
    run(flat, barrier);
    const std::int64_t begin = now_ns();
    for (std::size_t i = 0; i < repeats; ++i) run(flat, call);
    return static_cast<double>(now_ns() - begin) / 1e3 / static_cast<double>(repeats);
  }

  // What position `i` of the result must be, given that rank r sends (i + r) % 64.
  float wanted(const Case& c, std::size_t count, std::size_t i) const {
    const auto sent = [](std::size_t rank, std::size_t at) { return static_cast<float>((at + rank) % 64); };
    const auto me = static_cast<std::size_t>(rank_);
    float sum = 0;
    switch (c.kind) {
      case Kind::allgather:
      case Kind::gather:
        return sent(i / count, i % count);
      case Kind::scatter:
        return sent(0, me * count + i);
      case Kind::alltoall:
        return sent(i / count, me * count + i % count);
      case Kind::broadcast:
        return sent(0, i);
      default:
        for (std::size_t r = 0; r < n_; ++r) sum += sent(r, c.kind == Kind::reduce_scatter ? me * count + i : i);
        return sum;
    }
  }

  void check(const Case& c, const FlatCall& call) const {
    if ((c.kind == Kind::reduce || c.kind == Kind::gather) && rank_ != 0) return;
    const std::size_t count = call.desc.count;
    const bool all_blocks = c.kind == Kind::allgather || c.kind == Kind::alltoall || c.kind == Kind::gather;
    const std::size_t got = all_blocks ? count * n_ : count;
    for (std::size_t i = 0; i < got; ++i) {
      float value = 0;
      std::memcpy(&value, call.recv + i * sizeof value, sizeof value);
      if (value == wanted(c, count, i)) continue;
      std::fprintf(stderr, "flat_bench: %s on rank %d: element %zu of %zu is %g, not %g\n", c.name, rank_, i, got,
                   static_cast<double>(value), static_cast<double>(wanted(c, count, i)));
      std::_Exit(1);
    }
  }

  static constexpr std::size_t kSlotsOnly = std::size_t{64} << 10;

  Failure failure_;
  int spare_cores_;
  Flat slots_;
  Flat flat_;
  int rank_;
  std::size_t n_;
  std::size_t elements_;
  float* send_;  // until the process ends
  float* recv_;
  std::uint64_t seq_ = 1;
};

}  // namespace

int main(int argc, char** argv) {
  const int nranks = argc > 1 ? std::atoi(argv[1]) : 2;
  const std::size_t largest = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : std::size_t{64} << 20;
  const auto wants = [&](const char* name) {
    return argc <= 3 || std::any_of(argv + 3, argv + argc, [&](const char* arg) { return std::string(arg) == name; });
  };
  std::array<Regions, 2> regions;
  for (Regions& one : regions) {
    one.nbytes = sizeof(RegionHeader) + Flat::area_size(nranks);
    for (int r = 0; r < nranks; ++r) one.base.push_back(map_shared(one.nbytes));
  }
  std::printf("%d ranks\n%-15s %10s %12s %12s %10s %10s %10s\n", nranks, "kind", "bytes", "best us", "median us",
              "GB/s moved", "best", "slots/this");
  std::fflush(stdout);

  std::vector<pid_t> children;
  for (int r = 0; r < nranks; ++r) {
    const pid_t child = fork();
    if (child != 0) {
      children.push_back(child);
      continue;
    }
    Bench bench(regions, r, nranks, largest);
    for (const Case& c : kCases) {
      if (!wants(c.name)) continue;
      for (const std::size_t nbytes :
           {std::size_t{8}, std::size_t{256}, std::size_t{4} << 10, std::size_t{16} << 10, std::size_t{128} << 10,
            std::size_t{1} << 20, std::size_t{8} << 20, std::size_t{64} << 20}) {
        if (nbytes <= largest) bench.measure(c, nbytes);
      }
    }
    std::_Exit(0);
  }
  int failed = 0;
  for (const pid_t child : children) {
    int how = 0;
    waitpid(child, &how, 0);
    failed += how != 0;
  }
  return failed == 0 ? 0 : 1;
}
