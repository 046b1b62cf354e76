"""Ranks that stay: processes that run one function after another, forked from a server that knows torch.

A test of this directory is the code of one rank:

    @on_ranks(2, 4)
    def test_sum(rank: int, size: int) -> None: ...

runs on 2 and on 4 processes, all of them members of torch's default group on pycomm. The processes serve many
tests; one that fails or hangs costs them their lives, and the next test gets new ones. ``fresh=True`` asks
for processes of its own, for a test that ends the default group or the process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib.util
import inspect
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 20.0  # of the default group's operations
LIMIT_S = 60.0  # of one test
_OUTPUT_SHOWN = 6000

_forked = multiprocessing.get_context("forkserver")
_forked.set_forkserver_preload(
    ["pytest", "torch", "torch._dynamo", "torch.distributed.fsdp", "pycomm.torch.groups", "team"]
)


class RankFailed(AssertionError):
    """Ranks raised, died or did not end in time; the message holds their tracebacks and output."""


def _load(name: str) -> Callable[..., Any]:
    """Return the function that ``file.py:function`` names."""
    path, _, function = name.rpartition(":")
    module_name = Path(path).stem
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    found = getattr(sys.modules[module_name], function)
    return getattr(found, "on_rank", found)


def _serve(calls: Connection, rank: int, size: int, directory: str, joins: bool, is_quiet: bool) -> None:
    """Be a rank: run what is asked for until the pipe closes."""
    if is_quiet:
        with Path(f"{directory}/output.{rank}").open("wb") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), TEAM_STORE=f"{directory}/store")
    try:
        if joins:
            join(rank, size)
        while True:
            name, args = calls.recv()
            try:
                calls.send((True, _load(name)(rank, size, *args)))
            except BaseException:  # shown by the parent
                calls.send((False, traceback.format_exc()))
                return
    except EOFError:
        if joins and dist.is_initialized():
            dist.destroy_process_group()
    except BaseException:
        calls.send((False, traceback.format_exc()))


def join(rank: int, size: int, *, attempt: int = 0, backend: str = "pycomm", **options: Any) -> None:
    """Make the default group."""
    import torch.distributed as dist

    store = f"file://{os.environ['TEAM_STORE']}.{attempt}"
    options.setdefault("timeout", timedelta(seconds=TIMEOUT_S))
    dist.init_process_group(backend, init_method=store, rank=rank, world_size=size, **options)


class Team:
    """Processes that run functions together.

    Parameters
    ----------
    size
        How many.
    joins
        Whether they make the default group first.
    is_quiet
        Whether their output is kept, to be shown with a failure.
    """

    def __init__(self, size: int, *, joins: bool = True, is_quiet: bool = True) -> None:
        self.size = size
        self.directory = Path(tempfile.mkdtemp(prefix="pycomm-team-"))
        self.processes: list[Any] = []
        self.pipes: list[Connection] = []
        for rank in range(size):
            ours, theirs = _forked.Pipe()
            process = _forked.Process(
                target=_serve, args=(theirs, rank, size, str(self.directory), joins, is_quiet), daemon=True
            )
            process.start()
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)

    def start(self, target: Callable[..., Any] | str, *args: Any) -> None:
        """Tell all ranks to call ``target(rank, size, *args)``."""
        name = target if isinstance(target, str) else f"{inspect.getfile(target)}:{target.__name__}"
        for pipe in self.pipes:
            pipe.send((name, args))

    def results(self, ranks: Sequence[int] | None = None, limit_s: float = LIMIT_S) -> list[Any]:
        """Return what ranks (all, when ``None``) have returned, in their order."""
        asked = list(range(self.size) if ranks is None else ranks)
        answers: dict[int, tuple[bool, Any]] = {}
        deadline = time.monotonic() + limit_s
        while len(answers) < len(asked):
            open_pipes = {self.pipes[rank]: rank for rank in asked if rank not in answers}
            ready = wait(list(open_pipes), max(0.0, deadline - time.monotonic()))
            if not ready:
                self._dump()
                for rank in open_pipes.values():
                    answers[rank] = False, f"did not end in {limit_s:g} s\n"
            for pipe in ready:
                rank = open_pipes[pipe]
                try:
                    answers[rank] = pipe.recv()
                except EOFError:
                    self.processes[rank].join(5)
                    answers[rank] = False, f"died with exit code {self.processes[rank].exitcode}\n"
            if any(not ok for ok, _ in answers.values()):
                deadline = min(deadline, time.monotonic() + 3)
        failed = {rank: text for rank, (ok, text) in answers.items() if not ok}
        if failed:
            shown = "".join(f"\n--- rank {r}: {text}{self._output(r)}" for r, text in sorted(failed.items()))
            self.kill()
            raise RankFailed(f"{len(failed)} of {len(asked)} ranks failed:{shown}")
        return [answers[rank][1] for rank in asked]

    def run(self, target: Callable[..., Any] | str, *args: Any, limit_s: float = LIMIT_S) -> list[Any]:
        """Call ``target(rank, size, *args)`` on all ranks; returns what they return."""
        self.start(target, *args)
        return self.results(limit_s=limit_s)

    def pid(self, rank: int) -> int:
        """Return the process id of a rank."""
        return int(self.processes[rank].pid)

    @property
    def is_alive(self) -> bool:
        """Whether all ranks live."""
        return bool(self.processes) and all(process.is_alive() for process in self.processes)

    def close(self) -> None:
        """Let the ranks destroy their group and end."""
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(10)
        self.kill()

    def kill(self) -> None:
        """End the ranks at once."""
        for process in self.processes:
            process.kill()
            process.join()
        for pipe in self.pipes:
            pipe.close()
        self.processes, self.pipes = [], []
        shutil.rmtree(self.directory, ignore_errors=True)

    def _dump(self) -> None:
        """Have every rank write its stacks."""
        for process in self.processes:
            if process.is_alive():
                os.kill(process.pid, signal.SIGUSR1)
        time.sleep(0.5)

    def _output(self, rank: int) -> str:
        with contextlib.suppress(OSError):
            return (self.directory / f"output.{rank}").read_text(errors="replace")[-_OUTPUT_SHOWN:]
        return ""


class Teams:
    """The teams of a session, by size."""

    def __init__(self) -> None:
        self._teams: dict[int, Team] = {}

    def of(self, size: int) -> Team:
        """Return a team whose default group is as new."""
        team = self._teams.get(size)
        if team is None or not team.is_alive:
            team = self._teams[size] = Team(size)
        return team

    def close(self) -> None:
        """End them all."""
        for team in self._teams.values():
            team.close()


def on_ranks(*sizes: int, fresh: bool = False, limit_s: float = LIMIT_S) -> Callable[[Any], Any]:
    """Make a test of the code of one rank, ``function(rank, size)``, run by that many ranks.

    Parameters
    ----------
    sizes
        Numbers of ranks; each is a test.
    fresh
        Start processes for it that have not made the default group, and end them afterwards.
    limit_s
        How long it may take.
    """

    def decorate(function: Callable[[int, int], Any]) -> Any:
        name = f"{inspect.getfile(function)}:{function.__name__}"

        def test(teams: Teams, size: int) -> None:
            if not fresh:
                teams.of(size).run(name, limit_s=limit_s)
                return
            team = Team(size, joins=False)
            try:
                team.run(name, limit_s=limit_s)
            finally:
                team.close()

        test.__name__, test.__doc__ = function.__name__, function.__doc__
        test.on_rank = function
        for mark in (pytest.mark.parametrize("size", sizes), pytest.mark.timeout(limit_s + 30)):
            test = mark(test)
        return test

    return decorate


@contextlib.contextmanager
def raises(
    kind: type[BaseException] | tuple[type[BaseException], ...], *words: str, within_s: float | None = None
) -> Any:
    """Expect an exception whose message has all the words, and perhaps soon."""
    start = time.monotonic()
    with pytest.raises(kind) as caught:
        yield
    took = time.monotonic() - start
    error = caught.value
    missing = [word for word in words if word.lower() not in str(error).lower()]
    assert not missing, f"{type(error).__name__} does not say {missing}: {error}"
    assert within_s is None or took <= within_s, f"{type(error).__name__} took {took:.2f} s: {error}"
