"""PyTorch's own distributed tests, on Gloo and with the backend swapped to pycomm, side by side.

    python benchmarks/torch_tests.py [-k TEXT] [--world-sizes 2,4] [--backends gloo,pycomm] [--json FILE]

The tests are those in torch's installed wheel (``torch.testing._internal.distributed``); they need the
package ``expecttest``. Suites: ``gloo``, all that run on Gloo; ``mpi``, those that torch keeps for MPI and a
CPU can run; ``rpc``, training with RPC and a process group. ``torch_tests_exceptions.toml`` lists the tests
that cannot pass on another backend, each with its reason. The exit code is 1 when a test that passes on Gloo
does not on pycomm and is not listed, or a listed one passes. docs/torch-tests.md shows a run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

HERE = Path(__file__).parent
WORKER = HERE / "torch_tests_worker.py"
SUITES = ("gloo", "mpi", "rpc")
OUTCOMES = ("passed", "failed", "skipped")


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one test."""

    backend: str
    world_size: int
    test: str
    outcome: str
    reason: str
    seconds: float


def environment(limit_s: int) -> dict[str, str]:
    return {
        "OMP_NUM_THREADS": "1",
        **os.environ,
        "DISTRIBUTED_TESTS_DEFAULT_TIMEOUT": str(limit_s),
        "PYTHONUNBUFFERED": "1",
    }


def find_tests(suites: list[str], text: str) -> list[str]:
    found: dict[str, str] = {}
    for suite in suites:
        command = [sys.executable, str(WORKER), suite, "list"]
        listed = subprocess.run(
            command, env=environment(60), capture_output=True, text=True, timeout=300, check=False
        )
        if listed.returncode:
            sys.exit(f"the tests of suite {suite!r} cannot be imported:\n{listed.stderr}")
        for name in listed.stdout.split():
            found.setdefault(name.partition("/")[2], name)
    return [name for name in found.values() if text in name]


def run_tests(tests: list[str], backend: str, world_size: int, limit_s: int, log: Path) -> Iterator[Result]:
    """Run tests of one suite. A worker that hangs or dies costs the test it was at; another goes on."""
    left = list(tests)
    while left:
        why = yield from run_worker(left, backend, world_size, limit_s, log)
        if left:
            yield Result(backend, world_size, left.pop(0), "failed", why, 0.0)


def run_worker(
    left: list[str], backend: str, world_size: int, limit_s: int, log: Path
) -> Generator[Result, None, str]:
    """Run tests, dropping from the list each that has ended; return what ended the worker."""
    suite = left[0].partition("/")[0]
    with (
        tempfile.NamedTemporaryFile("r", suffix=".jsonl", encoding="utf-8") as lines,
        log.open("ab") as output,
    ):
        worker = subprocess.Popen(
            [sys.executable, str(WORKER), suite, "run", backend, str(world_size), lines.name],
            env=environment(limit_s),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )
        assert worker.stdin is not None  # noqa: S101 - it is a pipe
        with worker.stdin as names:
            names.write("\n".join(left))
        heard = time.monotonic()
        why = ""
        try:
            while True:
                has_ended = worker.poll() is not None
                for line in lines:
                    yield Result(backend, world_size, **json.loads(line))
                    left.pop(0)
                    heard = time.monotonic()
                if has_ended:
                    return why or f"the worker ended with exit code {worker.returncode}; see {log}"
                # The harness ends a test at its limit; beyond that nothing moves any more.
                if time.monotonic() - heard > limit_s + 60:
                    why = f"no end within {limit_s + 60} s"
                    kill(worker)
                time.sleep(0.1)
        finally:
            kill(worker)


def kill(worker: subprocess.Popen[str]) -> None:
    """End a worker and whatever ranks it has left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def report(results: Iterable[Result], total: int, file: TextIO) -> Iterator[Result]:
    """Pass results on, printing a line of each and writing it to a file."""
    for number, result in enumerate(results, 1):
        print(
            f"{number:>5}/{total}  {result.backend:<8}{result.world_size:>2} ranks  {result.outcome:<8}"
            f"{result.seconds:7.1f} s  {result.test}",
            flush=True,
        )
        file.write(json.dumps(asdict(result)) + "\n")
        file.flush()
        yield result


def load_exceptions(sizes: Iterable[int]) -> dict[tuple[str, int], str]:
    """Return the reasons by test and number of ranks."""
    with (HERE / "torch_tests_exceptions.toml").open("rb") as file:
        entries = tomllib.load(file)["exception"]
    return {
        (entry["test"], size): entry["reason"]
        for entry in entries
        for size in sizes
        if entry.get("world_size", size) == size
    }


def last_line(reason: str) -> str:
    """The line that says what went wrong: the last one of a Python traceback, before C++'s."""
    lines = [line for line in reason.split("\nException raised from")[0].splitlines() if line.strip()]
    errors = [line for line in lines if line and not line[0].isspace() and ": " in line]
    return (errors or lines or [""])[-1]


def compare(results: list[Result], exceptions: dict[tuple[str, int], str]) -> int:
    """Print counts side by side and every test that passes on the first backend only."""
    outcomes = {(r.backend, r.world_size, r.test): r for r in results}
    backends = list(dict.fromkeys(r.backend for r in results))
    print(
        f"\n{'suite':<8}{'ranks':>6}"
        + "".join(f"{f'{backend} {outcome}':>16}" for backend in backends for outcome in OUTCOMES)
    )
    groups = sorted({(r.test.partition("/")[0], r.world_size) for r in results})
    for suite, world_size in groups:
        row = f"{suite:<8}{world_size:>6}"
        for backend in backends:
            counts = Counter(
                r.outcome
                for r in results
                if (r.backend, r.world_size) == (backend, world_size) and r.test.startswith(f"{suite}/")
            )
            row += "".join(f"{counts[outcome]:>16}" for outcome in OUTCOMES)
        print(row)
    if len(backends) < 2:
        return 0
    base, ours = backends[:2]
    code = 0
    gained = 0
    for (backend, world_size, test), result in outcomes.items():
        if backend != base:
            continue
        other = outcomes[ours, world_size, test]
        gained += result.outcome != "passed" and other.outcome == "passed"
        if result.outcome == "passed" and other.outcome != "passed":
            listed = exceptions.get((test, world_size))
            code = code if listed else 1
            print(f"\nonly {base}: {test}, {world_size} ranks: {other.outcome}; {last_line(other.reason)}")
            print(f"  listed: {listed}" if listed else "  NOT LISTED")
    for test, world_size in exceptions:
        ran = outcomes.get((ours, world_size, test))
        if ran is not None and ran.outcome == "passed":
            print(f"\nlisted as an exception, but passes: {test}, {world_size} ranks")
            code = 1
    print(f"\n{gained} pass on {ours} and not on {base}")
    return code


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-k", default="", metavar="TEXT", help="only tests whose name contains it")
    parser.add_argument("--suites", default=",".join(SUITES))
    parser.add_argument("--backends", default="gloo,pycomm", help="the first one is compared with")
    parser.add_argument("--world-sizes", default="2,4")
    parser.add_argument("--slice", default="1/1", metavar="I/N", help="every N-th test, from the I-th")
    parser.add_argument("--limit", type=int, default=120, metavar="SECONDS", help="for one test")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", default=Path(os.devnull), help="write every result, a line each"
    )
    parser.add_argument("--log", type=Path, default=Path(tempfile.gettempdir()) / "torch_tests.log")
    parser.add_argument("--list", action="store_true", help="print the tests' names and end")
    given = parser.parse_args()
    first, _, step = given.slice.partition("/")
    tests = find_tests(given.suites.split(","), given.k)[int(first) - 1 :: int(step)]
    if given.list:
        print("\n".join(tests))
        return 0
    given.log.write_bytes(b"")
    sizes, backends = [int(size) for size in given.world_sizes.split(",")], given.backends.split(",")
    stream = (
        result
        for size in sizes
        for backend in backends
        for suite in SUITES
        for result in run_tests(
            [test for test in tests if test.startswith(f"{suite}/")], backend, size, given.limit, given.log
        )
    )
    with given.json.open("w", encoding="utf-8") as file:
        results = list(report(stream, len(tests) * len(sizes) * len(backends), file))
    return compare(results, load_exceptions(sizes))


if __name__ == "__main__":
    sys.exit(main())
