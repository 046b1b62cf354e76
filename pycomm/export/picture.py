"""A picture of a schedule: ranks as rows, steps from left to right, messages as arrows.

Drawn by matplotlib, which is imported only when a picture is asked for; the file's suffix chooses the format.
"""

from __future__ import annotations

import io
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from pycomm.collectives.spec import buffer_chunks, input_chunks, output_chunks
from pycomm.errors import BackendUnavailable, UsageError
from pycomm.export.timeline import Message, Timeline, unit_timeline
from pycomm.schedule import Schedule, Space

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["picture"]

_MAX_MESSAGES: Final = 20_000
_MAX_LABELS: Final = 150
_COLOURS: Final = 10


def picture(schedule: Schedule, suffix: str) -> bytes:
    """Draw the schedule's unit-time run.

    Arrows are labelled with the global chunks they carry, ``+`` in front where the receiver reduces them, and
    are coloured by the first of them; dotted arrows are signals, which carry none.

    Parameters
    ----------
    schedule
        What to draw.
    suffix
        File format: ``".svg"``, ``".png"`` or ``".pdf"``.

    Raises
    ------
    BackendUnavailable
        If matplotlib is not installed.
    ScheduleError
        If the schedule does not run to its end.
    UsageError
        If there are too many messages to see any of them.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendUnavailable(f"pictures need matplotlib ({error}); pip install matplotlib") from error
    timeline = unit_timeline(schedule)
    if len(timeline.messages) > _MAX_MESSAGES:
        raise UsageError(
            f"{len(timeline.messages)} messages are too many to draw (at most {_MAX_MESSAGES}); "
            "draw fewer ranks, or convert to a .trace.json and open it in Perfetto"
        )
    # A fixed salt and no date: the same schedule gives the same file.
    with mpl.rc_context({"svg.hashsalt": "pycomm", "svg.fonttype": "none", "font.size": 9}):
        width = min(max(2.0 + 0.95 * timeline.steps, 5.0), 30.0)
        height = min(max(1.3 + 0.6 * schedule.nranks, 2.4), 24.0)
        figure = Figure(figsize=(width, height), layout="constrained")
        _draw(figure.add_subplot(), schedule, timeline)
        file = io.BytesIO()
        metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix, {})
        figure.savefig(file, format=suffix.removeprefix("."), dpi=150, metadata=metadata)
    return file.getvalue()


def _draw(axes: Axes, schedule: Schedule, timeline: Timeline) -> None:
    from matplotlib import colormaps

    palette = colormaps["tab10"]
    names = [_names(schedule, rank) for rank in range(schedule.nranks)]
    programs = [schedule.program(rank).tolist() for rank in range(schedule.nranks)]
    for rank in range(schedule.nranks):
        axes.axhline(rank, color="0.8", linewidth=1, zorder=0)
    with_labels = len(timeline.messages) <= _MAX_LABELS
    for message in timeline.messages:
        _, _, _, space, start, _, _, count = programs[message.src][message.send_op]
        carried = names[message.src].get(space, [])[start : start + count] if count else []
        colour = palette(carried[0] % _COLOURS) if carried else "0.4"
        _arrow(axes, message, colour, _label(message, carried) if with_labels else "")
    places = "in place" if schedule.in_place else "out of place"
    axes.set_title(
        f"{schedule.name} {schedule.kind.label}: {schedule.nranks} ranks, {timeline.steps} steps, {places}"
    )
    axes.set_xlabel("step (every message takes one)")
    axes.set_ylabel("rank")
    axes.set_xlim(-0.15, max(timeline.steps, 1) + 0.15)
    axes.set_ylim(schedule.nranks - 0.5, -0.5)
    every = max(1, schedule.nranks // 32)
    axes.set_yticks(range(0, schedule.nranks, every))
    axes.set_xticks(range(0, timeline.steps + 1, max(1, timeline.steps // 20)))
    axes.grid(axis="x", color="0.9", linewidth=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _arrow(axes: Axes, message: Message, colour: object, label: str) -> None:
    begin, end = (message.start, message.src), (message.start + 1, message.dst)
    style = {"arrowstyle": "-|>", "color": colour, "shrinkA": 2, "shrinkB": 2}
    axes.annotate("", xy=end, xytext=begin, arrowprops={**style, "linestyle": "-" if message.chunks else ":"})
    if label:
        # A third of a row from the sender, where arrows of one step have not met yet.
        way = 0.34 / abs(end[1] - begin[1])
        x, y = begin[0] + way, begin[1] + way * (end[1] - begin[1])
        box = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
        axes.text(x, y, label, color=colour, ha="center", va="center", fontsize=8, bbox=box)


def _names(schedule: Schedule, rank: int) -> dict[int, list[int]]:
    """Global chunk of every index of every space of a rank."""
    shape = (schedule.kind, schedule.nranks, schedule.root, schedule.pieces)
    inputs, outputs = input_chunks(*shape, rank).tolist(), output_chunks(*shape, rank).tolist()
    if schedule.in_place:
        inputs = outputs = buffer_chunks(*shape, rank).tolist()
    scratch = schedule.scratch_slots(rank).tolist()
    return {Space.INPUT: inputs, Space.OUTPUT: outputs, Space.SCRATCH: scratch}


def _label(message: Message, chunks: list[int]) -> str:
    if not chunks:
        return ""
    is_run = all(after == before + 1 for before, after in pairwise(chunks))
    if len(chunks) == 1:
        text = str(chunks[0])
    elif is_run:
        text = f"{chunks[0]}-{chunks[-1]}"
    else:
        text = f"{chunks[0]},..." if len(chunks) > 3 else ",".join(map(str, chunks))
    return f"{'+' * message.reduces}{text}"
