"""Works and futures: when they end, what they hold, what they raise; threads; overlap with computation."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from team import on_ranks, raises
from torch import Tensor
from values import combined, mine, same

from pycomm.errors import CommError, DeadlineExceeded, Mismatch
from pycomm.torch.work import PycommWork

_SUM = dist.ReduceOp.SUM


def total(size: int, shape: int, salt: int = 0) -> Tensor:
    return combined([mine(r, shape, salt=salt) for r in range(size)], _SUM)


@on_ranks(2, 4)
def test_work(rank: int, size: int) -> None:
    tensor = mine(rank, 5)
    work = dist.all_reduce(tensor, async_op=True)
    assert work.wait() is True
    assert work.wait(timedelta(seconds=1)) is True  # again is fine
    assert work.is_completed()
    assert work.is_success()
    assert work.exception() is None
    assert [t.data_ptr() for t in work.result()] == [tensor.data_ptr()]
    same(tensor, total(size, 5), "sum")
    assert dist.all_reduce(tensor) is None  # a blocking call returns nothing to wait for


@on_ranks(2)
def test_a_work_ends_without_being_waited_for(rank: int, size: int) -> None:
    for count in (1, 200_000):
        tensor = mine(rank, count)
        work = dist.all_reduce(tensor, async_op=True)
        deadline = time.monotonic() + 10
        while not work.is_completed():
            assert time.monotonic() < deadline
        same(tensor, total(size, count), f"{count}")


@on_ranks(2, 4)
def test_works_waited_for_in_reverse(rank: int, size: int) -> None:
    tensors = [mine(rank, 100, salt=i) for i in range(30)]
    works = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
    for work in reversed(works):
        work.wait()
    for i, tensor in enumerate(tensors):
        same(tensor, total(size, 100, i), f"{i}")


@on_ranks(2)
def test_the_wait_has_a_timeout(rank: int, size: int) -> None:
    """Patience ends, the operation does not: it can be waited for again."""
    tensor = mine(rank, 5)
    store = dist.PrefixStore("patience", dist.group.WORLD.get_group_store())
    if rank == 0:
        work = dist.all_reduce(tensor, async_op=True)
        assert not work.is_completed()
        with raises(DeadlineExceeded, within_s=3):
            work.wait(timedelta(milliseconds=200))
        assert not work.is_completed()
        store.set("patience ended", "")
        work.wait()
    else:
        store.get("patience ended")
        dist.all_reduce(tensor)
    same(tensor, total(size, 5), "sum")


@on_ranks(2, 4)
def test_futures(rank: int, size: int) -> None:
    tensor = mine(rank, 5)
    future = dist.all_reduce(tensor, async_op=True).get_future()
    doubled = future.then(lambda done: done.value()[0] * 2)
    same(doubled.wait(), total(size, 5) * 2, "a chain")
    same(future.value()[0], total(size, 5), "the value is the list of outputs")
    assert future.done()
    late = future.then(lambda done: done.value()[0] + 1)  # the callback of a future that has ended
    same(late.wait(), total(size, 5) + 1, "a late callback")
    output = torch.zeros(size, 3)
    gathered = dist.all_gather_into_tensor(output, mine(rank, 3), async_op=True).get_future().wait()
    same(gathered[0], torch.stack([mine(r, 3) for r in range(size)]), "of a gather")
    both = torch.futures.collect_all(
        [dist.all_reduce(mine(rank, 4, salt=i), async_op=True).get_future() for i in range(2)]
    )
    for i, one in enumerate(both.wait()):
        same(one.value()[0], total(size, 4, i), f"collected {i}")


@on_ranks(2, 4)
def test_collectives_in_callbacks(rank: int, size: int) -> None:
    """As PowerSGD does: a callback starts the next collective and waits for it, many chains at once."""

    def chain(i: int) -> torch.futures.Future[Tensor]:
        first, second, third = mine(rank, 50, salt=i), mine(rank, 20, salt=i), mine(rank, 10, salt=i)

        def then_second(done: torch.futures.Future[list[Tensor]]) -> Tensor:
            second.add_(done.value()[0][:20])
            return dist.all_reduce(second, async_op=True).get_future().wait()[0]

        def then_third(done: torch.futures.Future[Tensor]) -> Tensor:
            third.add_(done.value()[:10])
            dist.all_reduce(third)
            return third

        return dist.all_reduce(first, async_op=True).get_future().then(then_second).then(then_third)

    for i in range(6):  # one at a time: which callback comes first is the same on all ranks
        step = total(size, 20, i) + size * total(size, 50, i)[:20]
        same(chain(i).wait(), total(size, 10, i) + size * step[:10], f"chain {i}")


@on_ranks(2)
def test_unrelated_work_goes_on_during_a_callback(rank: int, size: int) -> None:
    """A callback that waits long keeps no later future from completing."""
    store = dist.PrefixStore("unrelated", dist.group.WORLD.get_group_store())
    if rank == 1:
        store.get("the callback is there")  # so that it does not run at once, on the thread that makes it
        dist.all_reduce(mine(rank, 5))
        dist.all_reduce(mine(rank, 6))
        return
    release = threading.Event()
    first = dist.all_reduce(mine(rank, 5), async_op=True).get_future()
    held = first.then(lambda done: release.wait(20))
    store.set("the callback is there", "")
    later = dist.all_reduce(mine(rank, 6), async_op=True).get_future()
    same(later.wait()[0], total(size, 6), "later")
    assert not held.done()
    release.set()
    assert held.wait()


@on_ranks(2)
def test_an_exception_in_a_callback(rank: int, size: int) -> None:
    def fail(done: torch.futures.Future[list[Tensor]]) -> None:
        raise KeyError("from the callback")

    future = dist.all_reduce(mine(rank, 5), async_op=True).get_future().then(fail)
    with raises(RuntimeError, "KeyError", "from the callback"):
        future.wait()
    same(dist.all_reduce(mine(rank, 5), async_op=True).get_future().wait()[0], total(size, 5), "the next one")


@on_ranks(2, 4)
def test_a_failure_reaches_the_future(rank: int, size: int) -> None:
    """Ranks disagree: work, future and whatever hangs on it raise what both sides said."""
    work = dist.all_reduce(torch.ones(3 if rank else 4), async_op=True)
    chained = work.get_future().then(lambda done: done.value())
    with raises(RuntimeError, "3", "4"):
        work.get_future().wait()
    with raises(RuntimeError, "3", "4"):
        chained.wait()
    with raises(Mismatch, "3", "4"):
        work.wait()
    assert work.is_completed()
    assert not work.is_success()
    assert isinstance(work.exception(), Mismatch)
    tensor = mine(rank, 5)
    dist.all_reduce(tensor)  # the group goes on
    same(tensor, total(size, 5), "after the disagreement")


@on_ranks(2)
def test_tensors_live_until_the_end(rank: int, size: int) -> None:
    """Only the operation holds the tensors; their memory must not be handed out again before its end."""
    works = []
    for i in range(20):
        works.append(dist.all_reduce(torch.full((50_000,), float(rank + i)), async_op=True))
        gc.collect() if i % 10 == 0 else None
        torch.full((50_000,), -1.0)  # would take the memory, were it free
    for i, work in enumerate(works):
        same(work.result()[0], torch.full((50_000,), 1.0 + 2 * i), f"{i}")
    futures = [
        dist.all_reduce(torch.full((50_000,), float(i)), async_op=True).get_future() for i in range(20)
    ]
    gc.collect()  # the works are gone, too
    for i, future in enumerate(futures):
        same(future.wait()[0], torch.full((50_000,), 2.0 * i), f"future {i}")


@on_ranks(2)
def test_communication_goes_on_during_computation(rank: int, size: int) -> None:
    """A large operation ends while this thread computes, and never calls the library."""
    tensor = torch.ones(4_000_000)
    ended: list[float] = []
    work = dist.all_reduce(tensor, async_op=True)
    future = work.get_future().then(lambda done: ended.append(time.monotonic()))
    matrix = torch.ones(200, 200)
    deadline = time.monotonic() + 20
    while not ended and time.monotonic() < deadline:
        matrix @ matrix
    assert ended, "it did not end while the caller computed"
    future.wait()
    same(tensor, torch.full((4_000_000,), 2.0), "sum")


@on_ranks(2)
def test_calls_from_several_threads(rank: int, size: int) -> None:
    """Each thread has a group of its own, so that ranks agree on the order of its calls."""
    groups = [dist.new_group() for _ in range(4)]
    failures: list[BaseException] = []

    def work(i: int) -> None:
        try:
            for turn in range(50):
                tensor = mine(rank, 10, salt=i + turn)
                dist.all_reduce(tensor, group=groups[i])
                same(tensor, total(size, 10, i + turn), f"thread {i}, turn {turn}")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures, failures
    assert not any(thread.is_alive() for thread in threads)
    for group in groups:
        dist.destroy_process_group(group)


@on_ranks(2)
def test_other_threads_run_while_one_waits(rank: int, size: int) -> None:
    store = dist.PrefixStore("gil", dist.group.WORLD.get_group_store())
    if rank == 1:
        store.get("rank 0 has counted")
        dist.all_reduce(torch.ones(1))
        return
    done = threading.Event()

    def wait_for_rank_1() -> None:
        dist.all_reduce(torch.ones(1))
        done.set()

    thread = threading.Thread(target=wait_for_rank_1)
    thread.start()
    sum(range(1_000_000))  # would never return if the waiting thread kept the GIL
    assert not done.is_set()
    store.set("rank 0 has counted", "")
    thread.join(20)
    assert done.is_set()


@on_ranks(2)
def test_autograd_threads(rank: int, size: int) -> None:
    """Collectives inside a backward pass, from autograd's own thread and from hooks."""

    class SumOverRanks(torch.autograd.Function):
        @staticmethod
        def forward(context: object, x: Tensor) -> Tensor:
            y = x.clone()
            dist.all_reduce(y)
            return y

        @staticmethod
        def backward(context: object, gradient: Tensor) -> Tensor:
            gradient = gradient.clone()
            dist.all_reduce(gradient, async_op=True).wait()
            return gradient

    x = mine(rank, 6).requires_grad_()
    works: list[dist.Work] = []
    x.register_hook(lambda gradient: works.append(dist.all_reduce(gradient.clone(), async_op=True)))
    y = SumOverRanks.apply(x)
    (y * (rank + 1)).sum().backward()
    same(y.detach(), total(size, 6), "forward")
    same(x.grad, torch.full((6,), 3.0), "backward")
    same(works[0].result()[0], torch.full((6,), 6.0), "hook")


@on_ranks(2)
def test_a_work_of_several_operations(rank: int, size: int) -> None:
    """The work of a coalesced call ends when all have ended, and fails when one fails."""
    work = dist.group.WORLD.allgather_coalesced(
        [[torch.zeros(2), torch.zeros(3)] for _ in range(size)], [torch.ones(2), torch.ones(3)]
    )
    assert len(work.get_future().wait()) == 2 * size
    with dist._coalescing_manager(async_ops=True) as manager:
        dist.all_reduce(torch.ones(2 + rank))
        dist.all_reduce(torch.ones(9))
    with raises(Mismatch):
        manager.wait()


@on_ranks(2)
def test_no_thread_stays(rank: int, size: int) -> None:
    """Threads that complete futures end when there has been nothing to do for a while."""
    before = threading.active_count()
    for _ in range(50):
        dist.all_reduce(torch.ones(3), async_op=True).get_future().wait()
    assert threading.active_count() <= before + 2
    deadline = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert threading.active_count() <= before


@on_ranks(2, fresh=True)
def test_failed_works_stay_failed(rank: int, size: int) -> None:
    """After an abort every work of the group has ended, with the reason."""
    from team import join

    join(rank, size)
    dist.all_reduce(torch.ones(1))
    if rank == 1:
        time.sleep(0.5)
        dist.group.WORLD.abort()
        return
    works = [dist.all_reduce(torch.ones(5), async_op=True) for _ in range(3)]
    future = works[2].get_future()
    for work in works:
        with raises(CommError, "abort"):
            work.wait()
        assert work.is_completed()
    with raises(RuntimeError, "abort"):
        future.wait()
    with raises(CommError, "abort"):
        dist.all_reduce(torch.ones(1))


_LAST_MOMENTS = """
import atexit, threading, time
began = []
atexit.register(lambda: print(f"ended after {time.monotonic() - began[0]:.3f} s", flush=True))
import torch
from pycomm.torch.work import Completer, PycommWork, complete_alone

class Part:
    def __init__(self, seconds):
        self.end = time.monotonic() + seconds
    def done(self):
        return time.monotonic() >= self.end
    def wait(self, timeout_s=None):
        time.sleep(max(0.0, self.end - time.monotonic()))
        return -1

def future_of(seconds, watch):
    return PycommWork([Part(seconds)], [torch.ones(1)], watch=watch).get_future()

for seconds in COLLECTIVES:
    future_of(seconds, Completer("group").watch).then(lambda done: print("a collective", flush=True))
for seconds in MESSAGES:
    future_of(seconds, complete_alone).then(lambda done: print("a message", flush=True))
atexit.register(lambda: began.append(time.monotonic()))
"""


def _last_moments(*, collectives: Sequence[float] = (), messages: Sequence[float] = ()) -> tuple[str, float]:
    """End a program whose operations go on for so long; what is completed by then, and the time it took."""
    code = _LAST_MOMENTS.replace("COLLECTIVES", repr(collectives)).replace("MESSAGES", repr(messages))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    *completed, last = done.stdout.splitlines()
    return ", ".join(completed), float(last.split()[2])


def test_the_program_ends_after_its_threads() -> None:
    """One that comes back to a Python that has ended kills the process."""
    assert _last_moments(collectives=[0.4])[0] == "a collective"
    assert _last_moments(messages=[0.4])[0] == "a message"


def test_the_program_waits_for_all_threads_together() -> None:
    completed, seconds = _last_moments(collectives=[30, 30], messages=[30, 30])
    assert completed == ""
    assert seconds < 1.9  # a second, and not one for each


def test_the_future_of_a_work_that_has_ended() -> None:
    """It has its value at once: no thread, nothing to wait for."""

    def refuse(work: PycommWork) -> None:
        raise AssertionError("nobody needs to watch it")

    output = torch.ones(3)
    work = PycommWork([_Ended()], [output], watch=refuse)
    future = work.get_future()
    assert future.done()
    assert future.value()[0] is output
    assert work.get_future() is future
    failed = PycommWork([_Ended(Mismatch("3 and 4"))], [output], watch=refuse).get_future()
    assert failed.done()
    with raises(RuntimeError, "3 and 4"):
        failed.wait()


class _Ended:
    """A part that has ended."""

    def __init__(self, failure: Exception | None = None) -> None:
        self._failure = failure

    def done(self) -> bool:
        return True

    def wait(self, timeout_s: float | None = None) -> int:
        if self._failure is not None:
            raise self._failure
        return -1
