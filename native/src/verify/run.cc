// Runs all programs on symbols, one rank at a time, each as far as its channels let it.
#include <algorithm>
#include <optional>
#include <stdexcept>

#include "verify/contributions.h"
#include "verify/lent.h"
#include "verify/verify.h"

namespace pycomm::verify {
namespace {

constexpr std::size_t idx(std::int64_t i) noexcept { return static_cast<std::size_t>(i); }

// Who may advance, and what each lane holds. `Act` is called for every op that is carried out.
class Progress {
 public:
  Progress(const Programs& programs, const Matching& matching, std::int64_t capacity)
      : programs_(programs),
        matching_(matching),
        capacity_(capacity),
        at_(programs.offsets.begin(), programs.offsets.end() - 1),
        held_(idx(matching.nlanes)),
        queued_(idx(programs.nranks()), true) {
    for (int r = programs.nranks(); r-- > 0;) ready_.push_back(r);
  }

  template <typename Act>
  void run(Act&& act) {
    while (!ready_.empty()) {
      const int rank = ready_.back();
      ready_.pop_back();
      queued_[idx(rank)] = false;
      while (at_[idx(rank)] < programs_.last(rank) && pass(at_[idx(rank)])) act(rank, at_[idx(rank)]++);
    }
  }

  std::int64_t at(int rank) const noexcept { return at_[idx(rank)]; }
  bool ended(int rank) const noexcept { return at(rank) == programs_.last(rank); }
  bool all_ended() const noexcept {
    for (int r = 0; r < programs_.nranks(); ++r)
      if (!ended(r)) return false;
    return true;
  }

 private:
  // Whether the row's lane lets it through; if so, the lane has changed and the peer may have become ready.
  bool pass(std::int64_t i) {
    const std::int32_t lane = matching_.lane[idx(i)];
    if (lane < 0) return true;
    const Row& row = programs_.row(i);
    std::int64_t& held = held_[idx(lane)];
    if (row.sends() ? held == capacity_ : held == 0) return false;
    held += row.sends() ? 1 : -1;
    if (!queued_[idx(row.peer)] && !ended(row.peer) && matching_.lane[idx(at(row.peer))] == lane) {
      queued_[idx(row.peer)] = true;
      ready_.push_back(row.peer);
    }
    return true;
  }

  const Programs& programs_;
  const Matching& matching_;
  std::int64_t capacity_;
  std::vector<std::int64_t> at_;
  std::vector<std::int64_t> held_;
  std::vector<bool> queued_;
  std::vector<int> ready_;
};

class Run {
 public:
  Run(const Programs& programs, const Matching& matching, const Memory& memory, int capacity, bool idempotent)
      : programs_(programs),
        matching_(matching),
        memory_(memory),
        progress_(programs, matching, capacity),
        values_(programs.nranks(), idempotent),
        lending_(find_obligations(programs, matching, memory)),
        content_(memory.nplaces(), kNothing),
        time_(idx(programs.nranks())),
        arrival_(programs.rows.size()) {
    if (!lending_.obligations.empty()) clocks_.emplace(lending_, programs.nranks());
    outcome_.traffic.resize(idx(programs.nranks()));
    obligation_.reserve(idx(programs.nranks()));
    for (int r = 0; r < programs.nranks(); ++r) {
      const auto first = std::lower_bound(lending_.obligations.begin(), lending_.obligations.end(), programs.first(r),
                                          [](const Obligation& o, std::int64_t row) { return o.row < row; });
      obligation_.push_back(idx(first - lending_.obligations.begin()));
      const std::int64_t end = memory.bases[idx(std::int64_t{3} * r + 3)];
      for (std::int64_t p = memory.bases[idx(std::int64_t{3} * r)]; p < end; ++p)
        if (memory.initial[idx(p)] >= 0) content_[idx(p)] = values_.leaf(r, memory.initial[idx(p)]);
    }
  }

  Outcome operator()() {
    progress_.run([this](int rank, std::int64_t i) { act(rank, i); });
    if (progress_.all_ended())
      judge_results();
    else
      report_deadlocks();
    outcome_.steps = *std::max_element(time_.begin(), time_.end());
    return std::move(outcome_);
  }

 private:
  void act(int rank, std::int64_t i) {
    const Row& row = programs_.row(i);
    Traffic& traffic = outcome_.traffic[idx(rank)];
    if (row.combines()) traffic.chunks_reduced += row.count;
    switch (row.op()) {
      case OpKind::send:
        ++traffic.messages_sent;
        traffic.chunks_sent += row.count;
        arrival_[idx(i)] = time_[idx(rank)] + 1;
        if (clocks_) clocks_->sent(rank, i);
        for (std::int32_t k = 0; k < row.count; ++k)
          read(rank, i, memory_.place(rank, row.src_space, row.src_start) + k);
        return;
      case OpKind::recv:
      case OpKind::recv_reduce:
        ++traffic.messages_received;
        traffic.chunks_received += row.count;
        receive(rank, i, row);
        return;
      case OpKind::copy:
      case OpKind::reduce:
        fulfil(rank, i);
        for (std::int32_t k = 0; k < row.count; ++k) {
          Node& to = content_[idx(memory_.place(rank, row.dst_space, row.dst_start) + k)];
          const Node from = read(rank, i, memory_.place(rank, row.src_space, row.src_start) + k);
          if (row.op() == OpKind::copy)
            to = from;
          else
            to = sum(read(rank, i, memory_.place(rank, row.dst_space, row.dst_start) + k), from);
        }
        return;
    }
  }

  // The message is read from the sender's memory only now, as late as it may be. Where that could differ from reading
  // it at once, the memory was written while it was lent, which is a finding of its own.
  void receive(int rank, std::int64_t i, const Row& row) {
    const std::int64_t send_row = matching_.partner[idx(i)];
    const Row& send = programs_.row(send_row);
    time_[idx(rank)] = std::max(time_[idx(rank)], arrival_[idx(send_row)]);
    if (clocks_) clocks_->received(rank, i, send_row);
    fulfil(rank, i);
    for (std::int32_t k = 0; k < row.count; ++k) {
      const Node message = content_[idx(memory_.place(row.peer, send.src_space, send.src_start) + k)];
      Node& to = content_[idx(memory_.place(rank, row.dst_space, row.dst_start) + k)];
      if (row.op() == OpKind::recv)
        to = message;
      else
        to = sum(read(rank, i, memory_.place(rank, row.src_space, row.src_start) + k), message);
    }
  }

  Node sum(Node a, Node b) { return a == kNothing || b == kNothing ? kNothing : values_.sum(a, b); }

  Node read(int rank, std::int64_t i, std::int64_t place) {
    const Node node = content_[idx(place)];
    if (node == kNothing) report({Problem::reads_nothing, rank, i - programs_.first(rank), place, {}});
    return node;
  }

  // Checks what the row's write needs to know about memory it has lent.
  void fulfil(int rank, std::int64_t i) {
    std::size_t& next = obligation_[idx(rank)];
    const std::vector<Obligation>& all = lending_.obligations;
    for (; next < all.size() && all[next].row == i; ++next) {
      const Obligation& o = all[next];
      if (clocks_->knows(rank, o)) continue;
      const std::int64_t first = programs_.first(rank);
      report(
          {Problem::overwrites_lent, rank, i - first, o.place, {o.send_row - first, programs_.row(o.send_row).peer}});
    }
  }

  void report(Finding finding) {
    if (reported_[static_cast<std::size_t>(finding.problem)]++ < kMaxFindings)
      outcome_.findings.push_back(std::move(finding));
  }

  void judge_results() {
    for (int rank = 0; rank < programs_.nranks(); ++rank) {
      const std::int64_t end = memory_.bases[idx(std::int64_t{3} * rank + 3)];
      for (std::int64_t p = memory_.bases[idx(std::int64_t{3} * rank)]; p < end; ++p) {
        const std::int32_t chunk = memory_.wanted[idx(p)];
        if (chunk < 0) continue;
        const Node node = content_[idx(p)];
        const std::int32_t source = memory_.source[idx(p)];
        if (node == kNothing)
          report({Problem::no_result, rank, -1, p, {}});
        else if (source < 0 ? !values_.is_sum_of_all(node, chunk) : !values_.is_leaf_of(node, source, chunk))
          report({Problem::wrong_result, rank, -1, p, explain(node)});
      }
    }
  }

  std::vector<std::int64_t> explain(Node node) const {
    std::vector<std::int64_t> numbers;
    if (reported_[static_cast<std::size_t>(Problem::wrong_result)] >= kMaxFindings) return numbers;  // not shown
    for (const Contribution& c : values_.explain(node)) {
      numbers.insert(
          numbers.end(),
          {c.rank, c.chunk, static_cast<std::int64_t>(std::min<std::uint64_t>(c.count, std::uint64_t{1} << 62))});
    }
    return numbers;
  }

  // Every rank that has not ended waits for exactly one other, so following the waits ends in a cycle.
  void report_deadlocks() {
    std::vector<int> seen_from(idx(programs_.nranks()), -1);
    for (int start = 0; start < programs_.nranks(); ++start) {
      int rank = start;
      while (!progress_.ended(rank) && seen_from[idx(rank)] < 0) {
        seen_from[idx(rank)] = start;
        rank = programs_.row(progress_.at(rank)).peer;
      }
      if (progress_.ended(rank) || seen_from[idx(rank)] != start) continue;
      Finding finding{Problem::deadlock, rank, progress_.at(rank) - programs_.first(rank), -1, {}};
      const int first = rank;
      do {
        finding.numbers.insert(finding.numbers.end(), {rank, progress_.at(rank) - programs_.first(rank)});
        rank = programs_.row(progress_.at(rank)).peer;
      } while (rank != first);
      report(std::move(finding));
    }
  }

  const Programs& programs_;
  const Matching& matching_;
  const Memory& memory_;
  Progress progress_;
  Contributions values_;
  Lending lending_;
  std::optional<Clocks> clocks_;
  std::vector<Node> content_;            // by place
  std::vector<std::int32_t> time_;       // by rank: messages on the longest chain that ends there
  std::vector<std::int32_t> arrival_;    // by row of a send: the same, when its message arrives
  std::vector<std::size_t> obligation_;  // by rank: the next one of its program
  std::size_t reported_[5] = {};
  Outcome outcome_;
};

void check_span(const Memory& memory, int rank, std::int32_t space, std::int32_t start, std::int32_t count) {
  if (count == 0 && space < 0) return;
  if (space < 0 || space > 2 || start < 0 || count < 0) throw std::invalid_argument("a span is malformed");
  const std::size_t base = 3 * idx(rank) + idx(space);
  if (start + std::int64_t{count} > memory.bases[base + 1] - memory.bases[base])
    throw std::invalid_argument("a span reaches out of its space");
}

// What the structural checks have established, made certain where reading memory depends on it.
void check(const Programs& programs, const Matching& matching, const Memory& memory) {
  const std::size_t n = memory.nplaces();
  if (programs.nranks() < 1 || memory.bases.size() != 3 * idx(programs.nranks()) + 1 || memory.wanted.size() != n ||
      memory.source.size() != n || memory.bases.front() != 0 || memory.bases.back() != static_cast<std::int64_t>(n) ||
      !std::is_sorted(memory.bases.begin(), memory.bases.end()))
    throw std::invalid_argument("the description of memory contradicts itself");
  for (int rank = 0; rank < programs.nranks(); ++rank) {
    for (std::int64_t i = programs.first(rank); i < programs.last(rank); ++i) {
      const Row& row = programs.row(i);
      if (row.kind < 0 || row.kind > static_cast<std::int32_t>(OpKind::recv_reduce))
        throw std::invalid_argument("an op's kind is unknown");
      if (row.op() != OpKind::recv) check_span(memory, rank, row.src_space, row.src_start, row.count);
      if (!row.sends()) check_span(memory, rank, row.dst_space, row.dst_start, row.count);
      const std::int32_t partner = matching.partner[idx(i)];
      const bool message = row.sends() || row.receives();
      if (message && (partner < 0 || programs.row(partner).count != row.count))
        throw std::invalid_argument("a message has no counterpart of its size");
    }
  }
}

}  // namespace

Outcome run(const Programs& programs, const Matching& matching, const Memory& memory, int capacity, bool idempotent) {
  check(programs, matching, memory);
  return Run(programs, matching, memory, capacity, idempotent)();
}

std::int64_t smallest_capacity(const Programs& programs, const Matching& matching) {
  const auto ends = [&](std::int64_t capacity) {
    Progress progress(programs, matching, capacity);
    progress.run([](int, std::int64_t) {});
    return progress.all_ended();
  };
  std::int64_t high = static_cast<std::int64_t>(programs.rows.size()) + 1;
  if (!ends(high)) return -1;
  std::int64_t low = 1;
  while (low < high) {
    const std::int64_t middle = low + (high - low) / 2;
    if (ends(middle))
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

}  // namespace pycomm::verify
