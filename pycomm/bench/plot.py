"""Pictures of reports: time over size, one panel per collective and number of ranks, one line per backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pycomm.bench.statistics import Record
from pycomm.errors import BackendUnavailable
from pycomm.units import format_size

__all__ = ["plot"]

_COLOURS = ("#1f6feb", "#d1495b", "#edae49", "#30a46c", "#7b5ea7", "#6e7781")


def plot(records: Sequence[Record], path: Path) -> None:
    """Write a picture; the suffix of ``path`` says which kind (svg, png, pdf).

    Raises
    ------
    BackendUnavailable
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter
    except ImportError as error:
        raise BackendUnavailable("a plot needs matplotlib; pip install matplotlib") from error
    kinds = list(dict.fromkeys(one.kind for one in records))
    groups = sorted({one.nranks for one in records})
    backends = list(dict.fromkeys(one.backend for one in records))
    figure = Figure(figsize=(4.2 * len(kinds), 3.4 * len(groups)), layout="constrained")
    panels = figure.subplots(len(groups), len(kinds), squeeze=False, sharex=True)
    for line, nranks in enumerate(groups):
        for column, kind in enumerate(kinds):
            panel = panels[line][column]
            for number, backend in enumerate(backends):
                mine = [r for r in records if (r.kind, r.nranks, r.backend) == (kind, nranks, backend)]
                form = any(r.in_place for r in mine) and not any(not r.in_place for r in mine)
                mine = sorted((r for r in mine if r.in_place == form), key=lambda r: r.nbytes)
                colour = _COLOURS[number % len(_COLOURS)]
                panel.plot(
                    [r.nbytes for r in mine], [r.time_us for r in mine], ".-", color=colour, label=backend
                )
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.grid(True, which="major", alpha=0.3)
            panel.set_title(f"{kind}, {nranks} ranks")
            panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: format_size(int(x))))
            panel.tick_params(axis="x", labelrotation=45)
            if column == 0:
                panel.set_ylabel("time (us), median of the slowest rank")
            if line == len(groups) - 1:
                panel.set_xlabel("size of the whole array")
    panels[0][0].legend()
    figure.savefig(path)
