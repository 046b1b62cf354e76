// Which earlier accesses a memory access must wait for: reads after writes, writes after reads, writes after writes, on
// overlapping bytes of one buffer.
#pragma once

#include <cstdint>
#include <iterator>
#include <map>
#include <vector>

namespace pycomm {

// Remembers, for every byte touched so far, who wrote it last and who has read it since. Bytes that were always touched
// together share an entry, so cost follows the number of distinct pieces, not of bytes.
class Hazards {
 public:
  // Appends to `waits_for` whom a read of [begin, end) by `node` must wait for.
  void read(std::uint64_t begin, std::uint64_t end, std::uint32_t node, std::vector<std::uint32_t>& waits_for) {
    visit(begin, end, [&](Piece& piece) {
      if (piece.has_writer) waits_for.push_back(piece.writer);
      piece.readers.push_back(node);
    });
  }
  void write(std::uint64_t begin, std::uint64_t end, std::uint32_t node, std::vector<std::uint32_t>& waits_for) {
    visit(begin, end, [&](Piece& piece) {
      if (piece.has_writer) waits_for.push_back(piece.writer);
      waits_for.insert(waits_for.end(), piece.readers.begin(), piece.readers.end());
      piece.readers.clear();
      piece.writer = node;
      piece.has_writer = true;
    });
  }

 private:
  struct Piece {
    std::uint64_t end = 0;
    std::uint32_t writer = 0;
    bool has_writer = false;
    std::vector<std::uint32_t> readers;
  };
  using Pieces = std::map<std::uint64_t, Piece>;  // by begin; disjoint

  // Makes `at` a boundary of whatever piece covers it.
  void cut(std::uint64_t at) {
    auto after = pieces_.lower_bound(at);
    if (after == pieces_.begin()) return;
    const auto piece = std::prev(after);
    if (piece->second.end <= at) return;
    Piece right = piece->second;
    piece->second.end = at;
    pieces_.emplace_hint(after, at, std::move(right));
  }
  // Calls use() for the pieces that make up [begin, end), new ones where nothing was touched yet.
  template <typename Use>
  void visit(std::uint64_t begin, std::uint64_t end, Use&& use) {
    if (begin == end) return;
    cut(begin);
    cut(end);
    auto piece = pieces_.lower_bound(begin);
    for (std::uint64_t at = begin; at < end;) {
      if (piece == pieces_.end() || piece->first > at) {
        const std::uint64_t gap_end = piece == pieces_.end() || piece->first > end ? end : piece->first;
        Piece fresh;
        fresh.end = gap_end;
        piece = pieces_.emplace_hint(piece, at, std::move(fresh));
      }
      use(piece->second);
      at = piece->second.end;
      ++piece;
    }
  }

  Pieces pieces_;
};

}  // namespace pycomm
