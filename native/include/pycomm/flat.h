// Flat collectives: those of a group whose members all share memory. Every rank runs the same stages on its own thread;
// there is no progress thread, no message and, while ranks keep pace, no system call.
//
// Memory of the caller is read once and written once; what travels between ranks passes through slots of the shared
// area that stay in cache, or, when it is large and the system lets them, ranks read it where it lies. Reductions
// combine in rank order 0..n-1, in float32 for half and float8 types, and round once per result: every rank gets the
// same bits, in place as out of place. Integers wrap around in their own type (avg divides the wrapped sum and
// truncates toward zero); premul_sum rounds each scaled contribution to the type first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "pycomm/region.h"
#include "pycomm/status.h"
#include "pycomm/types.h"
#include "pycomm/wait.h"

namespace pycomm {

// One collective, bound to this rank's memory. Blocks lie one after the other, in rank order; ragged blocks at the
// running sums of their counts. `send` and `recv` may be null where the rank has none, may have any alignment, and do
// not overlap unless the call is in place:
//   allreduce, reduce, broadcast, alltoall(v)        recv == send
//   allgather(v), gather(v) at the root              send is block `rank` of recv
//   reduce_scatter(v)                                recv is block `rank` of send, or recv == send
//   scatter(v) at the root                           recv is block `rank` of send
// Out of place, `send` is not modified.
struct FlatCall {
  Descriptor desc;  // kind: any but send and recv
  const std::byte* send = nullptr;
  std::byte* recv = nullptr;
  const std::int64_t* counts = nullptr;  // ragged: count of each block (n; alltoallv n*n, row s column d), else null
};

// "allreduce float32 sum count=1000": what a call is, for messages. Never fails.
std::string describe(const Descriptor& desc);

struct FlatOptions {
  // Cores of the host less the ranks that run on it; when negative, waits give the core away at once instead of
  // spinning. Ranks may give different ones.
  int spare_cores = -1;
  // Whether ranks read each other's memory (process_vm_readv) where that is faster. Where one rank does not, or may
  // not, all use slots.
  bool single_copy = true;
  // Bytes of the longest transfer between two ranks from which on it is. The same on every rank.
  std::size_t single_copy_from = std::size_t{256} << 10;
};

// One rank's side of a group. Not thread-safe: one operation at a time, in the same order on every rank.
class Flat {
 public:
  // Bytes of the flat area of each region; it follows the RegionHeader. Good for up to 8,000 ranks.
  static std::size_t area_size(int nranks) noexcept;

  // `regions` must be shared by all and zeroed before any rank's first operation; they and `failure` outlive this.
  Flat(Regions regions, int rank, int nranks, const Failure& failure, const FlatOptions& options);
  ~Flat();
  Flat(const Flat&) = delete;
  Flat& operator=(const Flat&) = delete;

  // Runs the collective to its end on this thread; `seq` numbers the operations of the group.
  //   mismatch     the ranks called different things: all of them return this, no buffer was touched, go on
  //   deadline     ranks() have not arrived; the group is out of step and must be failed by the caller
  //   unsupported  the reduce op is undefined on the type; all ranks return this
  //   other        failure.cause(): the group failed
  Status run(const FlatCall& call, std::uint64_t seq, Deadline deadline);
  // Only the first stage of it: makes sure that all ranks make this call, which is then performed by other means.
  Status agree(const Descriptor& desc, std::uint64_t seq, Deadline deadline);

 private:
  class Engine;
  std::unique_ptr<Engine> engine_;
};

}  // namespace pycomm
