"""Forked ranks and what they say: the harness of faults.py, extremes.py and hosts.py.

The calling process imports everything once and forks the ranks, so that a group stands in a fraction of a
second.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

import pycomm

SECRET = "a secret of the tests"


class Failed(Exception):
    """A trial did not go as it must."""


@dataclass
class Rank:
    """A forked rank and what it has said."""

    number: int
    pid: int
    pipe: int
    buffer: bytes = b""
    events: list[dict] = field(default_factory=list)


Say = Callable[..., None]
Body = Callable[[pycomm.Communicator, Say], None]
Join = Callable[[int], pycomm.Communicator]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(
    n: int, body: Body, *, timeout_s: float = 20.0, port: int | None = None, join: Join | None = None
) -> list[Rank]:
    """Fork n ranks that join one group (``join`` makes a rank's communicator) and run the body."""
    port = port or free_port()

    def meet_here(number: int) -> pycomm.Communicator:
        return pycomm.init(
            "native", rank=number, size=n, rendezvous=f"127.0.0.1:{port}", secret=SECRET, timeout_s=timeout_s
        )

    ranks = []
    for number in range(n):
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            os._exit(run_rank(number, join or meet_here, body, write_end))
        os.close(write_end)
        ranks.append(Rank(number, pid, read_end))
    return ranks


def run_rank(number: int, join: Join, body: Body, pipe: int) -> int:
    def say(event: str, **fields: object) -> None:
        os.write(pipe, (json.dumps({"event": event, "at": time.monotonic(), **fields}) + "\n").encode())

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        comm = join(number)
        body(comm, say)
        comm.close()
    except BaseException as error:
        say("crash", text="".join(traceback.format_exception(error)))
        return 1
    say("end")
    return 0


def pump(ranks: list[Rank], until: Callable[[], bool], limit_s: float, what: str) -> None:
    """Read events until the condition holds."""
    end = time.monotonic() + limit_s
    while not until():
        left = end - time.monotonic()
        if left <= 0:
            said = {r.number: [e["event"] for e in r.events] for r in ranks}
            raise Failed(f"waited {limit_s} s for {what}; events so far: {said}")
        for pipe in select.select([r.pipe for r in ranks if r.pipe >= 0], [], [], left)[0]:
            rank = next(r for r in ranks if r.pipe == pipe)
            data = os.read(pipe, 65536)
            if not data:
                os.close(pipe)
                rank.pipe = -1
                continue
            rank.buffer += data
            *lines, rank.buffer = rank.buffer.split(b"\n")
            rank.events += [json.loads(line) for line in lines]
            for event in rank.events:
                if event["event"] == "crash":
                    raise Failed(f"rank {rank.number} crashed: {event['text']}")


def all_said(ranks: list[Rank], event: str) -> bool:
    return all(any(e["event"] == event for e in rank.events) for rank in ranks)


def get(rank: Rank, event: str) -> dict:
    return next(e for e in rank.events if e["event"] == event)


def until_said(ranks: list[Rank], event: str, limit_s: float, what: str) -> None:
    """Read events until every one of the ranks has said this one."""
    pump(ranks, lambda: all_said(ranks, event), limit_s, what)


def run_to_end(ranks: list[Rank], limit_s: float) -> None:
    """Read events until every rank has ended, and reap them."""
    try:
        until_said(ranks, "end", limit_s, f"{len(ranks)} ranks to end")
    finally:
        finish(ranks)


def finish(ranks: list[Rank]) -> None:
    """Kill what is left and reap everybody."""
    for rank in ranks:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rank.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(rank.pid, 0)
        if rank.pipe >= 0:
            os.close(rank.pipe)
