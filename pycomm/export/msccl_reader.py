"""MSCCL XML read into a schedule: what other synthesisers made, to be verified, priced and run like ours.

A rank's thread blocks run concurrently, a schedule's program is one list: the file is executed once, thread
blocks in turn, connections holding any number of messages, and the order in which a rank's steps came to run
is its program. Every place in memory is followed, so that each scratch slot gets the size of the chunk that
lies in it.

``rcs``, ``rrs`` and ``rrcs`` become a receive and a send; what ``rrs`` combines without keeping it goes
through a scratch slot. ``nop`` carries dependences only, which the order of the program already has.

References
----------
Microsoft/msccl: ``src/include/msccl.h``; Azure/msccl-tools: ``msccl/language/ir.py`` (attributes and types of
steps).
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pycomm.collectives.spec import buffer_chunks, input_chunks, output_chunks
from pycomm.errors import TopologyError, UsageError
from pycomm.export.msccl import COLLECTIVES
from pycomm.schedule import Schedule
from pycomm.schedule.builder import Place, ScheduleBuilder, inp, out, scr
from pycomm.topology.importers.source import Source, decode
from pycomm.topology.importers.xmltext import Element, parse_xml
from pycomm.types import CollectiveKind

__all__ = ["read_msccl_xml"]

_KINDS: Final = {label: kind for kind, label in COLLECTIVES.items()} | {
    "reduce_scatter": CollectiveKind.REDUCE_SCATTER
}
_RECEIVES: Final = frozenset({"r", "rcs", "rrs", "rrc", "rrcs"})
_SENDS: Final = frozenset({"s", "rcs", "rrs", "rrcs"})
_TYPES: Final = _RECEIVES | _SENDS | {"cpy", "re", "nop"}
_MAX_RANKS: Final = 65_536
_MAX_STEPS: Final = 1 << 22

_Place = tuple[str, int]


class _Step(NamedTuple):
    type: str
    src: _Place
    dst: _Place
    count: int  # type: ignore[assignment]  # hides tuple.count, which no step needs
    waits_for: tuple[int, int]
    line: int


@dataclass(slots=True)
class _Block:
    rank: int
    send: int
    recv: int
    channel: int
    steps: list[_Step] = field(default_factory=list)
    done: int = 0


class _Request(NamedTuple):
    """What the builder wants to know."""

    kind: CollectiveKind
    nranks: int
    root: int
    in_place: bool


def read_msccl_xml(data: bytes, name: str = "MSCCL XML") -> Schedule:
    """Read MSCCL XML.

    Parameters
    ----------
    data
        The file.
    name
        Its name, for messages.

    Returns
    -------
    Schedule
        Not verified yet, as nothing that is read is.

    Raises
    ------
    UsageError
        It is no MSCCL XML, cut short, contradicts itself, or does not run to its end; with the line.
    """
    try:
        source = decode(data, name)
        return _Reader(source, parse_xml(source)).schedule()
    except TopologyError as error:  # as the reader of XML calls what is wrong with a file
        raise UsageError(str(error)) from None


class _Reader:
    """One file: its facts, its thread blocks, and the run that puts them in order."""

    def __init__(self, source: Source, algo: Element) -> None:
        self.source = source
        if algo.tag != "algo":
            source.fail(f"the root element is <{algo.tag[:40]}>, not <algo>: this is no MSCCL XML", algo.line)
        label = algo.get("coll")
        if label not in _KINDS:
            source.fail(f"coll={label!r} is none of {', '.join(sorted(_KINDS))}", algo.line)
        self.kind = _KINDS[label]
        self.nranks = self._number(algo, "ngpus", 1, _MAX_RANKS)
        self.in_place = algo.get("inplace", "0") == "1" and algo.get("outofplace", "0") == "0"
        if self.in_place and self.kind is CollectiveKind.ALLTOALL:
            source.fail(
                "an alltoall in place cannot be followed chunk by chunk; read one out of place", algo.line
            )
        self.root = self._number(algo, "root", 0, self.nranks - 1, "0") if self.kind.is_rooted else -1
        self.title = algo.get("name") or "msccl"
        gpus = {self._number(gpu, "id", 0, self.nranks - 1): gpu for gpu in algo.named("gpu")}
        if len(gpus) != self.nranks:
            source.fail(f"there are {len(gpus)} different <gpu> for ngpus={self.nranks}", algo.line)
        self.gpus = [gpus[rank] for rank in range(self.nranks)]
        self.pieces = self._pieces()
        self.blocks = [block for rank, gpu in enumerate(self.gpus) for block in self._blocks(rank, gpu)]

    def _number(self, element: Element, key: str, low: int, high: int, default: str = "") -> int:
        text = element.get(key, default)
        if not text.lstrip("-").isdecimal() or not low <= int(text) <= high:
            wanted = f"a number from {low} to {high}"
            self.source.fail(f"<{element.tag}> has {key}={text!r}; {wanted} is wanted", element.line)
        return int(text)

    def _pieces(self) -> int:
        """Chunks per block: the chunks of rank 0 (the root) over the blocks that it has."""
        rank = max(self.root, 0)
        gpu = self.gpus[rank]
        for key, chunks in (("i_chunks", input_chunks), ("o_chunks", output_chunks)):
            count = self._number(gpu, key, 0, _MAX_STEPS, "0")
            blocks = len(chunks(self.kind, self.nranks, self.root, 1, rank))
            if count and blocks:
                if count % blocks:
                    self.source.fail(
                        f"{key}={count} is no multiple of the {blocks} blocks of a rank", gpu.line
                    )
                return count // blocks
        return self.source.fail(
            "neither i_chunks nor o_chunks says into how many chunks data are cut", gpu.line
        )

    def _blocks(self, rank: int, gpu: Element) -> list[_Block]:
        blocks: dict[int, _Block] = {}
        for tb in gpu.named("tb"):
            number = self._number(tb, "id", 0, 1 << 16)
            if number in blocks:
                self.source.fail(f"rank {rank} has two thread blocks {number}", tb.line)
            send, recv = (self._number(tb, key, -1, self.nranks - 1, "-1") for key in ("send", "recv"))
            block = blocks[number] = _Block(rank, send, recv, self._number(tb, "chan", -1, 1 << 15, "0"))
            for index, step in enumerate(tb.named("step")):
                if self._number(step, "s", 0, _MAX_STEPS) != index:
                    self.source.fail(f"step {step.get('s')} stands where step {index} should", step.line)
                block.steps.append(self._step(step, block))
        if sorted(blocks) != list(range(len(blocks))):
            self.source.fail(f"the thread blocks of rank {rank} are not numbered from 0 on", gpu.line)
        return [blocks[number] for number in range(len(blocks))]

    def _step(self, step: Element, block: _Block) -> _Step:
        kind = step.get("type")
        if kind not in _TYPES:
            self.source.fail(f"type={kind!r} is none of {', '.join(sorted(_TYPES))}", step.line)
        for types, peer, direction in ((_SENDS, block.send, "send"), (_RECEIVES, block.recv, "recv")):
            if kind in types and peer < 0:
                self.source.fail(f"a step of type {kind} in a thread block with {direction}=-1", step.line)
        count = self._number(step, "cnt", 0 if kind == "nop" else 1, _MAX_STEPS)
        waits_for = tuple(self._number(step, key, -1, _MAX_STEPS, "-1") for key in ("depid", "deps"))
        src, dst = (
            (step.get(f"{side}buf"), self._number(step, f"{side}off", -1, _MAX_STEPS, "-1"))
            for side in ("src", "dst")
        )
        return _Step(kind, src, dst, count, (waits_for[0], waits_for[1]), step.line)

    def schedule(self) -> Schedule:
        """Run the file once and write down what each rank does."""
        try:
            return _Run(self, whole=True).finish()
        except _Scattered:
            return _Run(self, whole=False).finish()


class _Scattered(Exception):
    """Chunks that one step moves together lie in scratch slots apart from each other."""


class _Run:
    """The file's execution: what lies where, and the programs that come of it."""

    def __init__(self, file: _Reader, *, whole: bool) -> None:
        self.file, self.whole = file, whole
        for block in file.blocks:
            block.done = 0
        request = _Request(file.kind, file.nranks, file.root, file.in_place)
        channels = 1 + max((block.channel for block in file.blocks), default=0)
        self.builder = ScheduleBuilder(request, file.title, pieces=file.pieces, channels=max(1, channels))
        self.messages: defaultdict[tuple[int, int, int], deque[list[int]]] = defaultdict(deque)
        self.ranks = [[block for block in file.blocks if block.rank == r] for r in range(file.nranks)]
        self.slots: dict[tuple[int, int, int], int] = {}  # of (rank, place in the file's scratch, chunk)
        self.held: list[dict[int, int]] = [{} for _ in range(file.nranks)]  # chunk of each scratch place
        shape = (file.kind, file.nranks, file.root, file.pieces)
        self.names = []
        for rank in range(file.nranks):
            # A rank without result may use the space of its result only in place, where it is its input.
            buffer = buffer_chunks(*shape, rank).tolist() if file.in_place else []
            inputs, outputs = input_chunks(*shape, rank).tolist(), output_chunks(*shape, rank).tolist()
            self.names.append({"i": inputs or buffer, "o": outputs or buffer})

    def finish(self) -> Schedule:
        """Run until nothing moves any more."""
        waiting = deque(block for block in self.file.blocks if block.steps)
        stuck = 0
        while waiting:
            block = waiting.popleft()
            moved = False
            while block.done < len(block.steps) and self._ready(block):
                step = block.steps[block.done]
                for part in [step] if self.whole else _single(step):
                    self._perform(block, part)
                block.done += 1
                moved = True
            if block.done < len(block.steps):
                waiting.append(block)
                stuck = 0 if moved else stuck + 1
            else:
                stuck = 0
            if waiting and stuck >= len(waiting):
                step = waiting[0].steps[waiting[0].done]
                self.file.source.fail(
                    f"rank {waiting[0].rank} never gets past this step: what it waits for does not come",
                    step.line,
                )
        left = sum(map(len, self.messages.values()))
        if left:
            self.file.source.fail(f"{left} messages are sent and never received")
        return self.builder.finish(None)

    def _ready(self, block: _Block) -> bool:
        step = block.steps[block.done]
        other, number = step.waits_for
        mine = self.ranks[block.rank]
        if other >= 0:
            if other >= len(mine) or number >= len(mine[other].steps):
                self.file.source.fail(
                    f"the step waits for step {number} of thread block {other}, which is not there", step.line
                )
            if mine[other].done <= number:
                return False
        return step.type not in _RECEIVES or bool(self.messages[block.recv, block.rank, block.channel])

    def _perform(self, block: _Block, step: _Step) -> None:
        rank, builder, channel = block.rank, self.builder, max(block.channel, 0)
        if step.type == "nop":
            return
        if step.type in _RECEIVES:
            chunks = self.messages[block.recv, rank, block.channel].popleft()
            if len(chunks) != step.count:
                self.file.source.fail(f"{step.count} chunks are received, {len(chunks)} were sent", step.line)
        else:
            chunks = self._chunks(rank, step.src, step.count, step.line)
        if step.type in ("rrs", "rrc", "rrcs"):
            local = self._place(rank, step.src, chunks, step.line, reading=True)
            if step.type == "rrs":
                target = scr(builder.scratch(rank, chunks), len(chunks))
            else:
                target = self._place(rank, step.dst, chunks, step.line)
            builder.recv_reduce(rank, block.recv, local, target, channel=channel)
        elif step.type in _RECEIVES:
            target = self._place(rank, step.dst, chunks, step.line)
            builder.recv(rank, block.recv, target, channel=channel)
        else:
            source = self._place(rank, step.src, chunks, step.line, reading=True)
            target = source
            if step.type in ("cpy", "re"):
                target = self._place(rank, step.dst, chunks, step.line, reading=step.type == "re")
                (builder.copy if step.type == "cpy" else builder.reduce)(rank, source, target)
        if step.type in _SENDS:
            builder.send(rank, block.send, target, channel=channel)
            self.messages[rank, block.send, block.channel].append(chunks)

    def _chunks(self, rank: int, place: _Place, count: int, line: int) -> list[int]:
        """Global chunks that lie at a place."""
        space, start = place
        if space == "s":
            held = [self.held[rank].get(i) for i in range(start, start + count)]
            found = [chunk for chunk in held if chunk is not None]
            if len(found) < count:
                self.file.source.fail(f"rank {rank} reads scratch {start} before anything is in it", line)
            return found
        if space not in ("i", "o"):
            self.file.source.fail(f"there is no buffer {space!r}; there are i, o and s", line)
        names = self.names[rank][space]
        if not 0 <= start <= start + count <= len(names):
            self.file.source.fail(
                f"rank {rank} has no chunks {start} to {start + count - 1} in buffer {space!r}", line
            )
        return names[start : start + count]

    def _place(
        self, rank: int, place: _Place, chunks: list[int], line: int, *, reading: bool = False
    ) -> Place:
        """Place of chunks in the schedule; scratch gets slots of their sizes."""
        space, start = place
        if start < 0:
            self.file.source.fail("a step that needs a place in memory has no offset", line)
        in_scratch = space == "s"
        if in_scratch and not reading:
            self.held[rank].update(zip(range(start, start + len(chunks)), chunks, strict=True))
        elif self._chunks(rank, place, len(chunks), line) != chunks:
            problem = f"chunk {chunks[0]} meets another in buffer {space!r} of rank {rank} at {start}"
            self.file.source.fail(problem, line)
        if in_scratch:
            return scr(self._slot(rank, start, chunks), len(chunks))
        return (inp if space == "i" else out)(start, len(chunks))

    def _slot(self, rank: int, start: int, chunks: list[int]) -> int:
        """First of the slots of chunks at a place of the file's scratch; the same chunk, the same slot."""
        keys = [(rank, start + i, chunk) for i, chunk in enumerate(chunks)]
        if not any(key in self.slots for key in keys):
            first = self.builder.scratch(rank, chunks)
            self.slots.update((key, first + i) for i, key in enumerate(keys))
        slots = [self.slots.get(key, -1) for key in keys]
        if slots != list(range(slots[0], slots[0] + len(slots))) or slots[0] < 0:
            raise _Scattered
        return slots[0]


def _single(step: _Step) -> list[_Step]:
    """Cut a step into steps of one chunk."""
    return [
        step._replace(
            count=1,
            src=(step.src[0], step.src[1] + i if step.src[1] >= 0 else -1),
            dst=(step.dst[0], step.dst[1] + i if step.dst[1] >= 0 else -1),
        )
        for i in range(step.count)
    ]
