#include "network/exact.h"

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <utility>
#include <vector>

#include "network/flow.h"

namespace pycomm::network {
namespace {

using Pair = std::pair<std::int32_t, std::int32_t>;

// Units that an arc between two vertices has, and of which arcs they are made: by way of a switch, or the network's
// own.
struct Piece {
  std::int32_t via;  // -1: an arc of the network
  std::int64_t units;
};
struct Logical {
  std::int64_t units = 0;
  std::vector<Piece> pieces;
};

struct Route {
  std::vector<std::int32_t> vertices;
  std::int64_t units;
};

// Arcs between vertices that change; flows over those that exist, or may soon.
class Arcs {
 public:
  explicit Arcs(int nranks, int nvertices) : nranks_(nranks), nvertices_(nvertices) {}

  void add(Pair pair, std::int64_t units, std::int32_t via) {
    Logical& arc = arcs_[pair];
    arc.units += units;
    if (!arc.pieces.empty() && arc.pieces.back().via == via)
      arc.pieces.back().units += units;
    else
      arc.pieces.push_back({via, units});
  }
  void take(Pair pair, std::int64_t units) { arcs_.at(pair).units -= units; }
  std::int64_t units(Pair pair) const {
    const auto found = arcs_.find(pair);
    return found == arcs_.end() ? 0 : found->second.units;
  }
  const std::map<Pair, Logical>& all() const noexcept { return arcs_; }

  // Ways of the network that carry the next `units` of an arc.
  void unroll(Pair pair, std::int64_t units, std::vector<Route>& routes) {
    Logical& arc = arcs_.at(pair);
    while (units > 0) {
      if (arc.pieces.empty()) throw std::logic_error("an arc carries more than was put on it");
      Piece& piece = arc.pieces.back();
      const std::int64_t part = std::min(units, piece.units);
      const std::int32_t via = piece.via;
      piece.units -= part;
      if (piece.units == 0) arc.pieces.pop_back();
      units -= part;
      if (via < 0) {
        routes.push_back({{pair.first, pair.second}, part});
      } else {
        join(pair, via, part, routes);
      }
    }
  }

  // A graph of all arcs with units and of the pairs in `more`, and a flow on it.
  void open(const std::vector<Pair>& more) {
    std::vector<Pair> pairs;
    for (const auto& [pair, arc] : arcs_)
      if (arc.units > 0) pairs.push_back(pair);
    for (const Pair& pair : more)
      if (units(pair) == 0) pairs.push_back(pair);
    std::sort(pairs.begin(), pairs.end());
    pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
    std::vector<std::int32_t> src, dst;
    number_.clear();
    for (const Pair& pair : pairs) {
      number_[pair] = static_cast<int>(src.size());
      src.push_back(pair.first);
      dst.push_back(pair.second);
    }
    flow_.reset();
    graph_ = std::make_unique<Digraph>(nranks_, nvertices_, src, dst);
    flow_ = std::make_unique<Flow<std::int64_t>>(*graph_);
    for (const Pair& pair : pairs) flow_->set_capacity(number_[pair], units(pair));
  }
  Flow<std::int64_t>& flow() noexcept { return *flow_; }
  // After a flow: the capacity of a pair is as given from here on. Takes the flow back.
  void set(Pair pair, std::int64_t value) {
    flow_->clear();
    flow_->set_capacity(number_.at(pair), value);
  }

 private:
  void join(Pair pair, std::int32_t via, std::int64_t units, std::vector<Route>& routes) {
    std::vector<Route> in, out;
    unroll({pair.first, via}, units, in);
    unroll({via, pair.second}, units, out);
    for (std::size_t i = 0, o = 0; i < in.size() && o < out.size();) {
      const std::int64_t part = std::min(in[i].units, out[o].units);
      Route route{in[i].vertices, part};
      route.vertices.insert(route.vertices.end(), out[o].vertices.begin() + 1, out[o].vertices.end());
      routes.push_back(std::move(route));
      if ((in[i].units -= part) == 0) ++i;
      if ((out[o].units -= part) == 0) ++o;
    }
  }

  int nranks_, nvertices_;
  std::map<Pair, Logical> arcs_;
  std::map<Pair, int> number_;
  std::unique_ptr<Digraph> graph_;
  std::unique_ptr<Flow<std::int64_t>> flow_;
};

// ---------------------------------------------------------------------------------------------------- splitting

class Splitting {
 public:
  Splitting(Arcs& arcs, std::span<const std::int64_t> roots)
      : arcs_(arcs), roots_(roots), total_(std::accumulate(roots.begin(), roots.end(), std::int64_t{0})) {}

  void empty(std::int32_t w) {
    std::vector<std::int32_t> from, to;
    for (const auto& [pair, arc] : arcs_.all()) {
      if (arc.units == 0) continue;
      if (pair.second == w) from.push_back(pair.first);
      if (pair.first == w) to.push_back(pair.second);
    }
    if (from.empty() && to.empty()) return;
    std::vector<Pair> more;
    for (const std::int32_t u : from)
      for (const std::int32_t t : to)
        if (u != t) more.emplace_back(u, t);
    arcs_.open(more);
    for (std::size_t r = 0; r < roots_.size(); ++r) arcs_.flow().set_supply(static_cast<int>(r), roots_[r]);
    std::int64_t in = 0, out = 0;
    for (const std::int32_t u : from) in += arcs_.units({u, w});
    for (const std::int32_t t : to) out += arcs_.units({w, t});
    if (in != out) throw std::logic_error("a switch has not as much capacity in as out");
    // Shares first, so that everything is joined with everything; then whatever goes; what came back to its source
    // last.
    pass(w, from, to, in, false);
    while (left(w, to) > 0) {
      const std::int64_t before = left(w, to);
      pass(w, from, to, 0, false);
      if (left(w, to) == before) pass(w, from, to, 0, true);
      if (left(w, to) == before) throw std::logic_error("a switch could not be split away");
    }
  }

 private:
  std::int64_t left(std::int32_t w, const std::vector<std::int32_t>& to) const {
    std::int64_t sum = 0;
    for (const std::int32_t t : to) sum += arcs_.units({w, t});
    return sum;
  }

  void pass(std::int32_t w, const std::vector<std::int32_t>& from, const std::vector<std::int32_t>& to,
            std::int64_t whole, bool back) {
    std::vector<std::int64_t> had(from.size());
    for (std::size_t i = 0; i < from.size(); ++i) had[i] = arcs_.units({from[i], w});
    for (std::size_t j = 0; j < to.size(); ++j) {
      const std::int64_t out = arcs_.units({w, to[j]});
      for (std::size_t n = 0; n < from.size(); ++n) {
        const std::size_t i = (n + j + 1) % from.size();  // each starts with another one
        if ((from[i] == to[j]) != back) continue;
        std::int64_t units = std::min(arcs_.units({from[i], w}), arcs_.units({w, to[j]}));
        if (whole > 0) units = std::min(units, static_cast<std::int64_t>(Int128{had[i]} * out / whole));
        if (units > 0) move(from[i], w, to[j], units);
      }
    }
  }

  // Moves as much of `units` as leaves every set sufficient.
  void move(std::int32_t u, std::int32_t w, std::int32_t t, std::int64_t units) {
    const std::int64_t in = arcs_.units({u, w});
    const std::int64_t out = arcs_.units({w, t});
    const std::int64_t straight = u == t ? 0 : arcs_.units({u, t});
    const auto set = [&](std::int64_t m) {
      arcs_.set({u, w}, in - m);
      arcs_.set({w, t}, out - m);
      if (u != t) arcs_.set({u, t}, straight + m);
    };
    Flow<std::int64_t>& flow = arcs_.flow();
    set(units);
    flow.unsettle_all();
    const std::size_t first = at(last_);  // the rank that blocked last comes first
    for (std::size_t i = 0; i < roots_.size() && units > 0;) {
      const int r = static_cast<int>((i + first) % roots_.size());
      const std::int64_t value = flow.run(r, total_);
      if (value == total_) {
        flow.settle(r);
        ++i;
        continue;
      }
      last_ = r;  // those settled stay so: fewer units take less from every set
      units = std::max<std::int64_t>(0, units - (total_ - value));
      set(units);
    }
    set(units);
    if (units == 0) return;
    arcs_.take({u, w}, units);
    arcs_.take({w, t}, units);
    if (u != t) arcs_.add({u, t}, units, w);
  }

  Arcs& arcs_;
  std::span<const std::int64_t> roots_;
  std::int64_t total_;
  int last_ = 0;
};

// ------------------------------------------------------------------------------------------------------ growing

class Growing {
 public:
  Growing(Arcs& arcs, std::span<const std::int64_t> roots, Forest& forest)
      : arcs_(arcs), left_(roots.begin(), roots.end()), forest_(forest) {
    arcs_.open({});
    for (const auto& [pair, arc] : arcs_.all())
      if (arc.units > 0) leaving_[pair.first].push_back(pair.second);
    for (std::size_t r = 0; r < left_.size(); ++r) arcs_.flow().set_supply(static_cast<int>(r), left_[r]);
    total_ = std::accumulate(left_.begin(), left_.end(), std::int64_t{0});
  }

  void run() {
    for (std::int32_t r = 0; at(r) < left_.size(); ++r)
      while (left_[at(r)] > 0) grow(r);
  }

 private:
  void grow(std::int32_t root) {
    units_ = left_[at(root)];
    edges_.clear();
    supply(root, 0);
    reached_.assign(left_.size(), 0);
    reached_[at(root)] = 1;
    std::vector<std::int32_t> order{root};
    while (order.size() < left_.size()) {
      const auto [pair, units] = find(order);
      if (units == 0) throw std::logic_error("a tree cannot grow: capacities are not sufficient");
      if (units < units_) shrink(root, units);
      arcs_.take(pair, units);
      arcs_.set(pair, arcs_.units(pair));
      edges_.push_back(pair);
      reached_[at(pair.second)] = 1;
      order.push_back(pair.second);
    }
    left_[at(root)] -= units_;
    total_ -= units_;
    emit(root);
  }

  void supply(std::int32_t root, std::int64_t units) {
    arcs_.flow().clear();
    arcs_.flow().set_supply(root, units);
  }

  // The first edge, from the ranks that were reached first, that can take all units; else the one that takes most.
  std::pair<Pair, std::int64_t> find(const std::vector<std::int32_t>& order) {
    std::pair<Pair, std::int64_t> best{{-1, -1}, 0};
    for (const std::int32_t x : order) {
      for (const std::int32_t y : leaving_[x]) {
        if (reached_[at(y)] != 0) continue;
        const std::int64_t units = safe({x, y}, best.second);
        if (units > best.second) best = {{x, y}, units};
        if (units == units_) return best;
      }
    }
    return best;
  }

  // How many of the tree's units may take an edge; anything up to `least` when it is no more than that.
  std::int64_t safe(Pair pair, std::int64_t least) {
    const std::int64_t had = arcs_.units(pair);
    std::int64_t units = std::min(units_, had);
    const std::int64_t others = total_ - units_;
    Flow<std::int64_t>& flow = arcs_.flow();
    while (units > least) {
      arcs_.set(pair, had - units);
      flow.settle(pair.first);
      const std::int64_t value = flow.run(pair.second, others);
      flow.unsettle(pair.first);
      if (value == others) break;
      units = std::max<std::int64_t>(0, units - (others - value));
    }
    arcs_.set(pair, had);
    return units;
  }

  // Fewer units of the tree as it is; the rest starts at the root again.
  void shrink(std::int32_t root, std::int64_t units) {
    for (const Pair& pair : edges_) {
      arcs_.take(pair, units - units_);
      arcs_.set(pair, arcs_.units(pair));
    }
    units_ = units;
    supply(root, left_[at(root)] - units);
  }

  // One tree for each combination of ways that its edges are carried on.
  void emit(std::int32_t root) {
    std::vector<std::vector<Route>> routes(edges_.size());
    for (std::size_t e = 0; e < edges_.size(); ++e) arcs_.unroll(edges_[e], units_, routes[e]);
    std::vector<std::size_t> next(edges_.size(), 0);
    for (std::int64_t done = 0; done < units_;) {
      std::int64_t part = units_ - done;
      for (std::size_t e = 0; e < edges_.size(); ++e) part = std::min(part, routes[e][next[e]].units);
      for (std::size_t e = 0; e < edges_.size(); ++e) {
        Route& route = routes[e][next[e]];
        forest_.path.insert(forest_.path.end(), route.vertices.begin(), route.vertices.end());
        forest_.end_edge();
        if ((route.units -= part) == 0) ++next[e];
      }
      forest_.end_tree(root, part);
      done += part;
    }
  }

  Arcs& arcs_;
  std::vector<std::int64_t> left_;
  Forest& forest_;
  std::map<std::int32_t, std::vector<std::int32_t>> leaving_;
  std::vector<std::uint8_t> reached_;
  std::vector<Pair> edges_;
  std::int64_t total_ = 0;
  std::int64_t units_ = 0;
};

}  // namespace

void pack_exactly(const Digraph& graph, std::span<const std::int64_t> capacity, std::span<const std::int64_t> roots,
                  Forest& forest) {
  Arcs arcs(graph.nranks, graph.nvertices);
  for (std::size_t a = 0; a < capacity.size(); ++a)
    if (capacity[a] > 0) arcs.add({graph.src[a], graph.dst[a]}, capacity[a], -1);
  Splitting splitting(arcs, roots);
  for (std::int32_t w = graph.nranks; w < graph.nvertices; ++w) splitting.empty(w);
  Growing(arcs, roots, forest).run();
}

}  // namespace pycomm::network
