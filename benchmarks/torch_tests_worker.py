"""Runs PyTorch's own distributed tests, one after the other, on one backend. Started by ``torch_tests.py``.

    python benchmarks/torch_tests_worker.py SUITE list
    python benchmarks/torch_tests_worker.py SUITE run BACKEND WORLD_SIZE RESULTS < NAMES

The tests come from torch's installed wheel and decide by the name of the backend whether they run. So they
are imported under the name of a backend of torch, whose conditions are those of the suite, and meet the
backend to be tested only then. Nothing that a test asserts is changed.
"""

from __future__ import annotations

import inspect
import json
import multiprocessing
import os
import sys
import time
import types
import unittest
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Whose conditions say which tests there are.
CONDITIONS = {"gloo": "gloo", "mpi": "mpi", "rpc": "gloo"}
# Of the hundreds of tests of RPC those that make a process group, besides the suites about DDP.
RPC_TESTS = (
    "test_deadlock",
    "test_dynamic_and_static_init_rpc_together",
    "test_init_pg_then_rpc",
    "test_init_rpc_then_pg",
    "test_pg_init_no_rpc_init",
)


class Forked:
    """Starts ranks by fork: importing torch anew in each of them takes longer than most tests."""

    def _spawn_processes(self: Any) -> None:
        self._start_processes(multiprocessing.get_context("fork").Process)


class SwappedName(str):
    """The backend's name where torch needs one, and still the suite's where a test asks for that."""

    __slots__ = ("suite",)
    suite: str
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) or other == self.suite

    def __ne__(self, other: object) -> bool:
        return not self == other


def import_suite(suite: str) -> list[type[unittest.TestCase]]:
    os.environ["BACKEND"] = CONDITIONS[suite]
    if suite == "rpc":
        from torch.testing._internal.distributed import rpc_utils
        from torch.testing._internal.distributed.rpc.tensorpipe_rpc_agent_test_fixture import (
            TensorPipeRpcAgentTestFixture,
        )

        bases: Iterable[type] = (
            rpc_utils.DdpUnderDistAutogradTest,
            rpc_utils.DdpComparisonTest,
            rpc_utils.RpcTest,
        )
        return [
            type(base.__name__, (Forked, base, TensorPipeRpcAgentTestFixture, rpc_utils.SpawnHelper), {})
            for base in bases
        ]
    from torch.testing._internal.distributed import distributed_test

    class DistributedTest(
        Forked, distributed_test.TestDistBackend, distributed_test.DistributedTest._DistTestBase
    ):
        def setUp(self) -> None:
            super().setUp()
            self._spawn_processes()

    return [DistributedTest]


def find_tests(suite: str) -> dict[str, unittest.TestCase]:
    """Return the tests that the suite's conditions do not rule out, by name."""
    found = {}
    for case in import_suite(suite):
        for method in unittest.TestLoader().getTestCaseNames(case):
            if case.__name__ == "RpcTest" and method not in RPC_TESTS:
                continue
            if not getattr(getattr(case, method), "__unittest_skip__", False):
                found[f"{suite}/{case.__name__}.{method}"] = case(method)
    return found


def swap(suite: str, backend: str) -> None:
    """Let the tests that were imported meet ``backend``."""
    import torch.distributed as dist

    # Small worlds are refused by name, to all but MPI.
    os.environ["BACKEND"] = "mpi"
    if suite == "rpc":
        original = dist.init_process_group

        def init_process_group(*args: Any, **options: Any) -> None:
            if options.get("backend") == "gloo":
                options["backend"] = backend
            original(*args, **options)

        dist.init_process_group = init_process_group
    else:
        from torch.testing._internal.distributed import distributed_test

        distributed_test.BACKEND = SwappedName(backend)
        distributed_test.BACKEND.suite = CONDITIONS[suite]
        for profiled in ("PROFILING_SUPPORTED_BACKENDS", "SEND_RECV_PROFILING_SUPPORTED_BACKENDS"):
            getattr(distributed_test, profiled).append(backend)
    # Torch's monitored barrier asks for Gloo by name, and for nothing else of it.
    barrier = inspect.unwrap(dist.monitored_barrier)
    lifted = {**barrier.__globals__, "get_backend": lambda _: dist.Backend.GLOO}
    dist.monitored_barrier = types.FunctionType(
        barrier.__code__, lifted, barrier.__name__, barrier.__defaults__, barrier.__closure__
    )
    # What a rank needs is imported before ranks are forked, as torch is.
    if backend == "pycomm":
        import pycomm.torch.groups  # noqa: F401 (for the ranks)


def run_one(test: unittest.TestCase) -> tuple[str, str]:
    """Run a test; return ``passed``, ``skipped`` or ``failed``, and why."""
    result = unittest.TestResult()
    try:
        test.run(result)
    finally:
        for child in multiprocessing.active_children():
            child.kill()
            child.join()
    if result.skipped:
        return "skipped", result.skipped[0][1]
    problems = [text for _, text in (*result.errors, *result.failures)]
    if result.unexpectedSuccesses:
        problems.append("passes, and torch expects it to fail")
    return ("failed", "\n".join(problems)) if problems else ("passed", "")


def main() -> None:
    suite, action, *arguments = sys.argv[1:]
    if action == "list":
        os.environ.setdefault("WORLD_SIZE", "4")
        print("\n".join(find_tests(suite)))
        return
    backend, world_size, results = arguments
    os.environ["WORLD_SIZE"] = world_size
    tests = find_tests(suite)
    swap(suite, backend)
    with Path(results).open("a", encoding="utf-8") as file:
        for name in sys.stdin.read().split():
            started = time.monotonic()
            outcome, reason = run_one(tests[name])
            seconds = time.monotonic() - started
            line = {"test": name, "outcome": outcome, "reason": reason, "seconds": round(seconds, 2)}
            file.write(json.dumps(line) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
