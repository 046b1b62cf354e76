#include "pycomm/plan.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <string>
#include <utility>

#include "executor/hazards.h"

namespace pycomm {
namespace {

constexpr std::size_t at(Space space) noexcept { return static_cast<std::size_t>(space); }

bool receives(OpKind kind) noexcept { return kind == OpKind::recv || kind == OpKind::recv_reduce; }

const char* space_name(Space space) noexcept {
  static constexpr const char* kNames[] = {"INPUT", "OUTPUT", "SCRATCH"};
  return kNames[at(space)];
}

class Binder {
 public:
  explicit Binder(const PlanSpec& spec) : spec_(spec) {}

  Result<BoundPlan> bind() {
    if (Status status = check_spec(); !status.ok()) return status;
    plan_.rank = spec_.rank;
    plan_.nranks = spec_.nranks;
    plan_.in_place = spec_.in_place;
    plan_.itemsize = spec_.itemsize;
    const std::size_t most = std::min(spec_.segment_nbytes, kMaxFramePayload);
    plan_.segment_nbytes = std::max(most / spec_.itemsize, std::size_t{1}) * spec_.itemsize;
    const std::size_t nsteps = spec_.ops.size() / kPlanColumns;
    plan_.steps.reserve(nsteps);
    for (std::size_t i = 0; i < nsteps; ++i)
      if (Status status = add_step(i); !status.ok()) return status;
    if (plan_.in_place) {
      const std::uint64_t both = std::max(plan_.space_nbytes[0], plan_.space_nbytes[1]);
      plan_.space_nbytes[0] = plan_.space_nbytes[1] = both;
    }
    number_messages();
    link();
    find_result();
    return std::move(plan_);
  }

 private:
  Status fail(std::size_t row, const std::string& what) const {
    return {Code::usage, "plan of rank " + std::to_string(spec_.rank) + ", op " + std::to_string(row) + ": " + what};
  }

  Status check_spec() {
    if (spec_.nranks < 1 || spec_.rank < 0 || spec_.rank >= spec_.nranks)
      return {Code::usage, "plan for rank " + std::to_string(spec_.rank) + " of " + std::to_string(spec_.nranks)};
    if (spec_.ops.size() % kPlanColumns != 0)
      return {Code::usage, "a plan's table has rows of " + std::to_string(kPlanColumns) + " columns; got " +
                               std::to_string(spec_.ops.size()) + " values"};
    if (spec_.itemsize == 0) return {Code::usage, "a plan's elements must have a size"};
    for (std::size_t space = 0; space < 3; ++space) {
      const auto& bounds = spec_.boundaries[space];
      constexpr auto kMost = std::numeric_limits<std::int64_t>::max();
      std::int64_t before = 0;
      for (const std::int64_t bound : bounds) {
        if (bound < before || bound > kMost / static_cast<std::int64_t>(spec_.itemsize))
          return {Code::usage, std::string("chunk boundaries of ") + space_name(static_cast<Space>(space)) +
                                   " must grow from 0; got " + std::to_string(bound) + " after " +
                                   std::to_string(before)};
        before = bound;
      }
      plan_.space_nbytes[space] = static_cast<std::uint64_t>(before) * spec_.itemsize;
    }
    return {};
  }

  // Translates a span of chunks to bytes. A span of no chunks may name no space at all.
  Status place(std::size_t row, std::int32_t space, std::int32_t start, std::int32_t count, Place& out,
               std::uint64_t& nbytes) const {
    if (count == 0 && space < 0) {
      nbytes = 0;
      return {};
    }
    if (space < 0 || space > 2) return fail(row, "no space has number " + std::to_string(space));
    const auto& bounds = spec_.boundaries[static_cast<std::size_t>(space)];
    const std::int64_t end = std::int64_t{start} + count;
    const std::int64_t chunks = bounds.empty() ? 0 : static_cast<std::int64_t>(bounds.size()) - 1;
    out.space = static_cast<Space>(space);
    if (start < 0 || count < 0 || end > chunks)
      return fail(row, std::string("chunks ") + std::to_string(start) + " to " + std::to_string(end) + " of " +
                           space_name(out.space) + ", which has " + std::to_string(chunks));
    if (bounds.empty()) return {};
    const std::int64_t first = bounds[static_cast<std::size_t>(start)];
    out.offset = static_cast<std::uint64_t>(first) * spec_.itemsize;
    nbytes = static_cast<std::uint64_t>(bounds[static_cast<std::size_t>(end)] - first) * spec_.itemsize;
    return {};
  }

  Status add_step(std::size_t row) {
    const std::int32_t* const op = &spec_.ops[row * kPlanColumns];
    if (op[0] < 0 || op[0] > static_cast<int>(OpKind::recv_reduce))
      return fail(row, "no op has kind " + std::to_string(op[0]));
    Step step;
    step.kind = static_cast<OpKind>(op[0]);
    const bool message = step.kind == OpKind::send || receives(step.kind);
    if (message) {
      if (op[1] < 0 || op[1] >= spec_.nranks || op[1] == spec_.rank)
        return fail(row, "peer " + std::to_string(op[1]) + " of " + std::to_string(spec_.nranks) + " ranks");
      if (op[2] < 0 || op[2] >= kDataChannel) return fail(row, "channel " + std::to_string(op[2]));
      step.peer = op[1];
      step.channel = static_cast<std::uint16_t>(op[2]);
      plan_.channels = std::max(plan_.channels, static_cast<std::uint32_t>(op[2]) + 1);
    }
    const bool has_src = step.kind != OpKind::recv;
    const bool has_dst = step.kind != OpKind::send;
    std::uint64_t src_nbytes = 0;
    std::uint64_t dst_nbytes = 0;
    if (has_src) PYCOMM_TRY(place(row, op[3], op[4], op[7], step.src, src_nbytes));
    if (has_dst) PYCOMM_TRY(place(row, op[5], op[6], op[7], step.dst, dst_nbytes));
    if (has_src && has_dst && src_nbytes != dst_nbytes)
      return fail(row,
                  "source of " + std::to_string(src_nbytes) + " bytes, destination of " + std::to_string(dst_nbytes));
    step.nbytes = has_src ? src_nbytes : dst_nbytes;
    if (has_dst && step.nbytes != 0 && step.dst.space == Space::input && !spec_.in_place)
      return fail(row, "writes INPUT, which belongs to the caller");
    const std::uint64_t nodes = step.nbytes == 0 ? 1 : (step.nbytes - 1) / plan_.segment_nbytes + 1;
    step.first_node = static_cast<std::uint32_t>(plan_.node_step.size());
    step.nodes = static_cast<std::uint32_t>(nodes);
    if (plan_.node_step.size() + step.nodes > std::numeric_limits<std::uint32_t>::max() / 2)
      return fail(row, "the program has too many segments; make segments larger");
    plan_.node_step.insert(plan_.node_step.end(), step.nodes, static_cast<std::uint32_t>(plan_.steps.size()));
    plan_.steps.push_back(step);
    return {};
  }

  void number_messages() {
    const std::size_t nlanes = static_cast<std::size_t>(plan_.nranks) * plan_.channels;
    std::vector<std::int32_t> sent(nlanes);
    plan_.incoming.resize(nlanes);
    for (std::uint32_t i = 0; i < plan_.steps.size(); ++i) {
      Step& step = plan_.steps[i];
      if (step.peer < 0) continue;
      const std::size_t lane = static_cast<std::size_t>(step.peer) * plan_.channels + step.channel;
      if (step.kind == OpKind::send) {
        step.message = sent[lane]++;
        step.slot = static_cast<std::uint32_t>(plan_.sends.size());
        plan_.sends.push_back(i);
      } else {
        step.message = static_cast<std::int32_t>(plan_.incoming[lane].count++);
        step.slot = static_cast<std::uint32_t>(plan_.receives.size());
        plan_.receives.push_back(i);
      }
    }
    std::uint32_t first = 0;
    for (LaneSlots& lane : plan_.incoming) {
      lane.first = first;
      first += lane.count;
    }
    plan_.slot_order.resize(first);
    for (const std::uint32_t i : plan_.receives) {
      const Step& step = plan_.steps[i];
      const LaneSlots lane = plan_.incoming[static_cast<std::size_t>(step.peer) * plan_.channels + step.channel];
      plan_.slot_order[lane.first + static_cast<std::uint32_t>(step.message)] = step.slot;
    }
  }

  // Finds, segment by segment in program order, which earlier ones each must wait for.
  void link() {
    const std::size_t nodes = plan_.nodes();
    plan_.waits_for.resize(nodes);
    plan_.first_next.assign(nodes + 1, 0);
    std::array<Hazards, 3> memory;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> edges;  // earlier, later
    std::vector<std::uint32_t> before;
    // A message without bytes says that its sender has come this far: it leaves after every earlier receive. Through
    // the one before it, it waits for all that one has waited for.
    std::vector<std::uint32_t> arrivals;
    for (std::uint32_t node = 0; node < nodes; ++node) {
      const Step& step = plan_.steps[plan_.node_step[node]];
      const std::uint64_t begin = plan_.node_begin(node);
      const std::uint64_t end = plan_.node_end(node);
      before.clear();
      if (step.kind != OpKind::recv) access(memory, step.src, begin, end, node, false, before);
      if (step.kind != OpKind::send) access(memory, step.dst, begin, end, node, true, before);
      if (receives(step.kind)) arrivals.push_back(node);
      if (step.kind == OpKind::send && step.nbytes == 0) {
        before.insert(before.end(), arrivals.begin(), arrivals.end());
        arrivals.assign(1, node);
      }
      std::sort(before.begin(), before.end());
      before.erase(std::unique(before.begin(), before.end()), before.end());
      std::erase(before, node);
      plan_.waits_for[node] = static_cast<std::uint32_t>(before.size());
      for (const std::uint32_t earlier : before) {
        ++plan_.first_next[earlier + 1];
        edges.emplace_back(earlier, node);
      }
    }
    for (std::size_t i = 0; i < nodes; ++i) plan_.first_next[i + 1] += plan_.first_next[i];
    plan_.next.resize(edges.size());
    std::vector<std::uint32_t> fill(plan_.first_next.begin(), plan_.first_next.end() - 1);
    for (const auto& [earlier, later] : edges) plan_.next[fill[earlier]++] = later;
  }

  void access(std::array<Hazards, 3>& memory, const Place& where, std::uint64_t begin, std::uint64_t end,
              std::uint32_t node, bool writes, std::vector<std::uint32_t>& before) const {
    if (where.space == Space::input && !plan_.in_place) return;  // never written
    // In place, INPUT and OUTPUT are the same bytes.
    Hazards& hazards = memory[where.space == Space::input ? at(Space::output) : at(where.space)];
    if (writes) {
      hazards.write(where.offset + begin, where.offset + end, node, before);
    } else {
      hazards.read(where.offset + begin, where.offset + end, node, before);
    }
  }

  void find_result() {
    const bool scattered = spec_.kind == Kind::reduce_scatter || spec_.kind == Kind::reduce_scatterv;
    const bool here =
        spec_.kind == Kind::allreduce || scattered || (spec_.kind == Kind::reduce && spec_.rank == spec_.root);
    if (!here) return;
    if (!scattered || !spec_.in_place) {
      plan_.result = {Space::output, 0};
      plan_.result_nbytes = plan_.space_nbytes[at(Space::output)];
      return;
    }
    const auto& bounds = spec_.boundaries[at(Space::input)];
    const std::size_t pieces = static_cast<std::size_t>(std::max(spec_.pieces, 1));
    const std::size_t first = static_cast<std::size_t>(spec_.rank) * pieces;
    if (first + pieces >= bounds.size()) return;
    plan_.result = {Space::input, static_cast<std::uint64_t>(bounds[first]) * spec_.itemsize};
    plan_.result_nbytes = static_cast<std::uint64_t>(bounds[first + pieces] - bounds[first]) * spec_.itemsize;
  }

  const PlanSpec& spec_;
  BoundPlan plan_;
};

}  // namespace

Result<BoundPlan> BoundPlan::bind(const PlanSpec& spec) { return Binder(spec).bind(); }

}  // namespace pycomm
