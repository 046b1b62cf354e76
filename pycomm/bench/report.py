"""A report: records and where they come from; how it is printed, saved and summed up."""

from __future__ import annotations

import csv
import io
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import msgspec

from pycomm.bench.environment import environment
from pycomm.bench.measure import measure
from pycomm.bench.scenario import Scenario
from pycomm.bench.statistics import Record, geometric_mean
from pycomm.bench.table import footer, header, pair_up, row
from pycomm.communicator import Communicator

__all__ = ["Report", "Summary", "run", "summarise", "to_csv", "to_json", "to_json_lines", "to_markdown"]

REPORT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Report:
    """Everything about one run. Empty on ranks other than 0."""

    version: int
    scenario: Scenario
    nranks: int
    environment: dict[str, Any]
    records: list[Record]

    @property
    def wrong(self) -> int:
        """Number of wrong elements in all."""
        return sum(max(0, one.wrong) for one in self.records)


def run(scenario: Scenario, comms: Mapping[str, Communicator], *, live: bool = False) -> Report:
    """Measure a scenario on this job's ranks. Collective: every rank calls it.

    Parameters
    ----------
    scenario
        What to measure; equal on all ranks.
    comms
        A communicator of all ranks for each backend of the scenario, in its order.
    live
        Whether rank 0 prints the table on stdout as it grows, and a progress bar on stderr if that is a
        terminal.

    Returns
    -------
    Report
        With all records on rank 0, with none elsewhere.
    """
    first = next(iter(comms.values()))
    screen = _Screen(scenario, first.size) if live and first.rank == 0 else None
    found = measure(scenario, comms, on_point=None if screen is None else screen.show)
    if screen is not None:
        screen.end(found)
    facts = environment() if first.rank == 0 else {}
    return Report(REPORT_VERSION, scenario, first.size, facts, found)


class _Screen:
    """The growing table."""

    def __init__(self, scenario: Scenario, nranks: int) -> None:
        self._scenario, self._nranks = scenario, nranks
        self._kind = ""
        self._done = 0
        self._total = len(scenario.kinds) * len(scenario.sizes)
        self._began = time.monotonic()
        self._has_bar = sys.stderr.isatty()

    def show(self, records: list[Record]) -> None:
        """Print the lines of one point."""
        lines = []
        if records and records[0].kind != self._kind:
            self._kind = records[0].kind
            lines += ["", *header(self._kind, self._nranks, self._scenario)]
        lines += [row(*pair) for pair in pair_up(records)]
        self._erase()
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        self._done += 1
        self._bar()

    def end(self, records: Sequence[Record]) -> None:
        """Print what is said at the end."""
        self._erase()
        sys.stdout.write("\n" + "\n".join(footer(records)) + "\n")
        sys.stdout.flush()

    def _bar(self) -> None:
        if self._has_bar:
            share = min(1.0, self._done / self._total)
            left_s = (time.monotonic() - self._began) / max(share, 1e-9) * (1 - share)
            bar = "#" * round(30 * share)
            sys.stderr.write(f"\r[{bar:<30}] {self._done}/{self._total} points, about {left_s:.0f} s left ")
            sys.stderr.flush()

    def _erase(self) -> None:
        if self._has_bar:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def to_json(report: Report) -> bytes:
    """Return the whole report as indented JSON; ratios that do not exist are null."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


def to_json_lines(report: Report) -> bytes:
    """Return one line per record; the first line has the scenario and the environment."""
    head = {"version": report.version, "nranks": report.nranks, "scenario": report.scenario}
    lines: list[Any] = [{**head, "environment": report.environment}, *report.records]
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def to_csv(report: Report) -> str:
    """Return the records as CSV with a head."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [one.name for one in fields(Record)], lineterminator="\n")
    writer.writeheader()
    for one in report.records:
        writer.writerow({name: "" if value != value else value for name, value in asdict(one).items()})
    return text.getvalue()


@dataclass(frozen=True, slots=True)
class Summary:
    """How the first backend compares with one peer over all points that both have.

    Attributes
    ----------
    peer : str
    points : int
    worst : Record
        Where the peer comes closest, or is furthest ahead.
    smallest, mean : float
        Smallest ratio of times peer / first, and their geometric mean; above 1, the first is faster.
    """

    peer: str
    points: int
    worst: Record
    smallest: float
    mean: float


def summarise(records: Sequence[Record]) -> list[Summary]:
    """Compare the first backend with every peer."""
    found = []
    for peer in dict.fromkeys(one.backend for one in records):
        mine = [one for one in records if one.backend == peer and math.isfinite(one.ratio)]
        if mine and any(one.ratio != 1 for one in mine):
            worst = min(mine, key=lambda one: one.ratio)
            found.append(
                Summary(peer, len(mine), worst, worst.ratio, geometric_mean(one.ratio for one in mine))
            )
    return found


def to_markdown(records: Sequence[Record], title: str) -> str:
    """Return a table of medians: one line per point, one column of times per backend, and the ratios."""
    backends = list(dict.fromkeys(one.backend for one in records))
    points: dict[tuple[str, int, bool, int], dict[str, Record]] = {}
    for one in records:
        points.setdefault((one.kind, one.nranks, one.in_place, one.nbytes), {})[one.backend] = one
    heads = [f"{name} (us)" for name in backends] + [f"{name} / {backends[0]}" for name in backends[1:]]
    lines = [f"## {title}", "", "| collective | ranks | form | S (B) | " + " | ".join(heads) + " |"]
    lines.append("|---|---|---|---" + "|---:" * len(heads) + "|")
    for (kind, nranks, in_place, nbytes), by_name in points.items():
        times = [f"{by_name[name].time_us:.4g}" if name in by_name else "-" for name in backends]
        ratios = [f"{by_name[name].ratio:.2f}" if name in by_name else "-" for name in backends[1:]]
        form = "in place" if in_place else "out of place"
        lines.append(f"| {kind} | {nranks} | {form} | {nbytes} | " + " | ".join(times + ratios) + " |")
    return "\n".join(lines) + "\n"
