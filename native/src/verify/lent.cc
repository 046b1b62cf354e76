#include "verify/lent.h"

#include <algorithm>

namespace pycomm::verify {
namespace {

// The sends that have lent each place of one rank since it was last written: chains through one growing array.
class Lenders {
 public:
  explicit Lenders(std::size_t nplaces) : head_(nplaces, -1) {}
  void lend(std::int64_t place, std::int64_t row) {
    links_.push_back({row, head_[static_cast<std::size_t>(place)]});
    head_[static_cast<std::size_t>(place)] = static_cast<std::int64_t>(links_.size()) - 1;
  }
  template <typename Visit>
  void take_back(std::int64_t place, Visit&& visit) {
    std::int64_t& head = head_[static_cast<std::size_t>(place)];
    for (; head >= 0; head = links_[static_cast<std::size_t>(head)].next)
      visit(links_[static_cast<std::size_t>(head)].row);
  }
  void forget_links() { links_.clear(); }

 private:
  struct Link {
    std::int64_t row, next;
  };
  std::vector<std::int64_t> head_;
  std::vector<Link> links_;
};

}  // namespace

Lending find_obligations(const Programs& programs, const Matching& matching, const Memory& memory) {
  Lending lending;
  lending.dimension.assign(static_cast<std::size_t>(programs.nranks()), -1);
  lending.receives.assign(programs.rows.size(), 0);
  for (int rank = 0; rank < programs.nranks(); ++rank) {
    std::int32_t made = 0;
    for (std::int64_t i = programs.first(rank); i < programs.last(rank); ++i)
      lending.receives[static_cast<std::size_t>(i)] = made += programs.row(i).receives() ? 1 : 0;
  }
  Lenders lenders(memory.nplaces());
  for (int rank = 0; rank < programs.nranks(); ++rank) {
    lenders.forget_links();  // ranks share no place, so no chain of another rank is looked at again
    for (std::int64_t i = programs.first(rank); i < programs.last(rank); ++i) {
      const Row& row = programs.row(i);
      if (row.count == 0) continue;
      const std::int64_t place = row.sends() ? memory.place(rank, row.src_space, row.src_start)
                                             : memory.place(rank, row.dst_space, row.dst_start);
      for (std::int64_t p = place; p < place + row.count; ++p) {
        if (row.sends()) {
          lenders.lend(p, i);
          continue;
        }
        lenders.take_back(p, [&](std::int64_t send_row) {
          const auto receive = static_cast<std::size_t>(matching.partner[static_cast<std::size_t>(send_row)]);
          std::int32_t& dimension = lending.dimension[static_cast<std::size_t>(programs.row(send_row).peer)];
          if (dimension < 0) dimension = lending.ndimensions++;
          lending.obligations.push_back({i, p, send_row, dimension, lending.receives[receive]});
        });
      }
    }
  }
  return lending;
}

Clocks::Clocks(const Lending& lending, int nranks)
    : lending_(lending), size_(static_cast<std::size_t>(lending.ndimensions)) {
  const std::int32_t zero = take();
  std::fill_n(at(zero), size_, 0);
  users_[static_cast<std::size_t>(zero)] += nranks;
  clock_of_rank_.assign(static_cast<std::size_t>(nranks), zero);
  clock_of_message_.assign(lending.receives.size(), -1);
}

void Clocks::sent(int rank, std::int64_t row) {
  const std::int32_t clock = clock_of_rank_[static_cast<std::size_t>(rank)];
  clock_of_message_[static_cast<std::size_t>(row)] = clock;
  ++users_[static_cast<std::size_t>(clock)];
}

void Clocks::received(int rank, std::int64_t row, std::int64_t send_row) {
  const std::int32_t message = clock_of_message_[static_cast<std::size_t>(send_row)];
  const std::int32_t mine = own(rank);
  if (message != mine) {
    std::int32_t* to = at(mine);
    const std::int32_t* from = at(message);
    for (std::size_t i = 0; i < size_; ++i) to[i] = to[i] < from[i] ? from[i] : to[i];
  }
  drop(message);
  const std::int32_t dimension = lending_.dimension[static_cast<std::size_t>(rank)];
  if (dimension >= 0) at(mine)[dimension] = lending_.receives[static_cast<std::size_t>(row)];
}

std::int32_t Clocks::take() {
  if (free_.empty()) {
    values_.resize(values_.size() + size_);
    users_.push_back(0);
    return static_cast<std::int32_t>(users_.size() - 1);
  }
  const std::int32_t clock = free_.back();
  free_.pop_back();
  return clock;
}

void Clocks::drop(std::int32_t clock) {
  if (--users_[static_cast<std::size_t>(clock)] == 0) free_.push_back(clock);
}

// The rank's clock, made its own so that it may change.
std::int32_t Clocks::own(int rank) {
  std::int32_t& clock = clock_of_rank_[static_cast<std::size_t>(rank)];
  if (users_[static_cast<std::size_t>(clock)] > 1) {
    const std::int32_t copy = take();
    std::copy_n(at(clock), size_, at(copy));
    users_[static_cast<std::size_t>(copy)] = 1;
    drop(clock);
    clock = copy;
  }
  return clock;
}

}  // namespace pycomm::verify
