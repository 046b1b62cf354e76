// The verifier's native half for Python: flat int32 and int64 arrays in, findings as tuples out. pycomm/verify turns
// them into words.
#include "verify/verify.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "arrays.h"
#include "bind.h"
#include "gil.h"

namespace py = pybind11;

namespace pycomm::bindings {
namespace {

struct Table {
  View<std::int32_t> ops;
  View<std::int64_t> offsets;
  verify::Programs programs;

  Table(const py::buffer& ops_, const py::buffer& offsets_) : ops(ops_, "ops"), offsets(offsets_, "offsets") {
    const auto cells = ops.span();
    const auto bounds = offsets.span();
    constexpr std::size_t kColumns = sizeof(verify::Row) / sizeof(std::int32_t);
    if (cells.size() % kColumns != 0) throw py::value_error("ops must have 8 columns");
    programs.rows = {reinterpret_cast<const verify::Row*>(cells.data()), cells.size() / kColumns};
    programs.offsets = bounds;
    if (bounds.size() < 2 || bounds.front() != 0 || bounds.back() != static_cast<std::int64_t>(programs.rows.size()) ||
        !std::is_sorted(bounds.begin(), bounds.end()))
      throw py::value_error("offsets must rise from 0 to the number of ops");
    if (programs.rows.size() > 0x7fff'ffff) throw py::value_error("more than 2^31 - 1 ops");
  }
};

py::tuple py_match(const py::buffer& ops, const py::buffer& offsets) {
  const Table table(ops, offsets);
  verify::Pairs matching;
  {
    const GilRelease release;
    matching = verify::match(table.programs);
  }
  py::list uneven;
  for (const verify::Uneven& u : matching.uneven)
    uneven.append(py::make_tuple(u.src, u.dst, u.channel, u.sent, u.received));
  return py::make_tuple(to_array(std::move(matching.lane)), to_array(std::move(matching.partner)), uneven);
}

const char* name_of(verify::Problem problem) {
  switch (problem) {
    case verify::Problem::reads_nothing:
      return "reads_nothing";
    case verify::Problem::wrong_result:
      return "wrong_result";
    case verify::Problem::no_result:
      return "no_result";
    case verify::Problem::overwrites_lent:
      return "overwrites_lent";
    case verify::Problem::deadlock:
      return "deadlock";
  }
  return "";
}

py::tuple py_run(const py::buffer& ops, const py::buffer& offsets, const py::buffer& lane, const py::buffer& partner,
                 const py::buffer& bases, const py::buffer& initial, const py::buffer& wanted, const py::buffer& source,
                 int capacity, bool idempotent) {
  const Table table(ops, offsets);
  const View<std::int32_t> lane_view(lane, "lane");
  const View<std::int32_t> partner_view(partner, "partner");
  const View<std::int64_t> base_view(bases, "bases");
  const View<std::int32_t> initial_view(initial, "initial");
  const View<std::int32_t> wanted_view(wanted, "wanted");
  const View<std::int32_t> source_view(source, "source");
  const verify::Memory memory{base_view.span(), initial_view.span(), wanted_view.span(), source_view.span()};
  verify::Outcome outcome;
  std::int64_t enough = 0;
  {
    const GilRelease release;
    const verify::Matching matching = verify::checked_matching(table.programs, lane_view.span(), partner_view.span());
    outcome = verify::run(table.programs, matching, memory, capacity, idempotent);
    const auto stuck = [](const verify::Finding& f) { return f.problem == verify::Problem::deadlock; };
    if (std::any_of(outcome.findings.begin(), outcome.findings.end(), stuck))
      enough = verify::smallest_capacity(table.programs, matching);
  }
  py::list findings;
  for (const verify::Finding& f : outcome.findings)
    findings.append(py::make_tuple(name_of(f.problem), f.rank, f.op, f.place, py::cast(f.numbers)));
  std::vector<std::int64_t> traffic;
  for (const verify::Traffic& t : outcome.traffic)
    traffic.insert(traffic.end(),
                   {t.messages_sent, t.messages_received, t.chunks_sent, t.chunks_received, t.chunks_reduced});
  return py::make_tuple(findings, outcome.steps, to_array(std::move(traffic)), enough);
}

}  // namespace

void bind_verify(py::module_& module) {
  module.def("verify_match", &py_match, py::arg("ops"), py::arg("offsets"),
             "Pair sends with receives: (lane of each op, partner of each op, uneven lanes).");
  module.def("verify_run", &py_run, py::arg("ops"), py::arg("offsets"), py::arg("lane"), py::arg("partner"),
             py::arg("bases"), py::arg("initial"), py::arg("wanted"), py::arg("source"), py::arg("capacity"),
             py::arg("idempotent"),
             "Run a schedule on symbols: (findings, steps, traffic of each rank, capacity that would be enough).");
}

}  // namespace pycomm::bindings
