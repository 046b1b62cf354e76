"""Making, shrinking and watching process groups."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from pycomm.backends.registry import get_backend
from pycomm.communicator import Communicator
from pycomm.config import setting
from pycomm.errors import DeadlineExceeded, UsageError
from pycomm.job import open_world
from pycomm.store import MemoryStore, Store
from pycomm.torch.mixed import complete
from pycomm.torch.options import Options, seconds
from pycomm.torch.process_group import ProcessGroupPycomm
from pycomm.torch.register import BACKEND_NAME
from pycomm.torch.rendezvous import TorchStore, meet

__all__ = ["create", "create_group", "monitored_barrier", "shrink_group", "subgroup"]


def create(asked: Any, options: Any = None) -> ProcessGroupPycomm:
    """Make the group that torch asks for.

    Parameters
    ----------
    asked
        Torch's description: store, rank, size, timeout, name, global ranks (none for the default group).
    options
        ``pg_options`` of ``init_process_group`` or ``new_group``: :class:`Options` or ``None``.
    """
    if options is not None and not isinstance(options, Options):
        raise UsageError(
            f"pg_options is a {type(options).__name__}; the pycomm backend takes pycomm.torch.Options or None"
        )
    timeout_s = seconds(asked.timeout)
    members = list(asked.global_ranks_in_group)
    world = c10d.GroupMember.WORLD
    if members and isinstance(world, ProcessGroupPycomm) and len(members) == asked.group_size:
        ranks = [c10d.get_group_rank(world, member) for member in members]
        group = subgroup(world, ranks, asked.group_id, timeout_s, options or world.options, asked.store)
    else:
        group = create_group(
            asked.store, asked.group_rank, asked.group_size,
            timeout_s=timeout_s, name=asked.group_id, options=options,
        )  # fmt: skip
    return complete(group, asked)


def create_group(
    store: Any,
    rank: int,
    size: int,
    *,
    timeout_s: float | None = None,
    name: str = "group",
    options: Options | None = None,
) -> ProcessGroupPycomm:
    """Make a group of its own, related to no other; every rank of it calls this.

    For whoever builds process groups without ``init_process_group``, e.g. torchft.

    Parameters
    ----------
    store
        A ``torch.distributed.Store`` that all ranks share, below a prefix that no other group uses.
    rank, size
        This process in the group.
    timeout_s
        Deadline for the group to stand, and of its operations; ``PYCOMM_TIMEOUT_S`` when ``None``.
    name
        What messages call the group.
    options
        Settings.
    """
    options = options or Options()
    provider = get_backend(options.engine or str(setting("backend")))
    wait_s = float(setting("timeout_s")) if timeout_s is None else timeout_s
    ours: Store
    if size == 1:
        ours, secret = MemoryStore(), os.urandom(32).hex()
    else:
        ours, secret = meet(TorchStore(store), rank, size, wait_s)
    comm = open_world(provider, rank, size, ours, secret, wait_s, name=f"torch {name}", leave=ours.close)
    return ProcessGroupPycomm(comm, options, store)


def subgroup(
    parent: ProcessGroupPycomm,
    ranks: Sequence[int],
    name: str,
    timeout_s: float | None,
    options: Options,
    store: Any = None,
) -> ProcessGroupPycomm:
    """Make a group of some ranks of another, over the connections that it has; only those ranks call this."""
    comm = parent.communicator.subgroup(ranks, f"{parent.communicator.name}/{name}", timeout_s=timeout_s)
    if store is None:
        store = dist.PrefixStore(f"{name}/", parent.get_group_store())
    return ProcessGroupPycomm(comm, options, store)


def monitored_barrier(
    group: ProcessGroupPycomm | None = None, timeout: timedelta | None = None, wait_all_ranks: bool = False
) -> None:
    """Wait until every rank has come here; when some do not, every rank that came is told which.

    It goes through torch's store and not through the group's connections, so that it works where those hang,
    and a rank that does not come leaves the group usable. ``torch.distributed.monitored_barrier`` refuses
    every backend but Gloo; this is its stand-in.

    Parameters
    ----------
    group
        The group; the default one when ``None``. A rank that is no member of it returns at once.
    timeout
        How long rank 0 waits for the others; the group's own when ``None``.
    wait_all_ranks
        Name every rank that does not come, and not only the first.

    Raises
    ------
    DeadlineExceeded
        Names the ranks that did not come.
    """
    if group is None:
        group = c10d._get_default_group()
    if group is c10d.GroupMember.NON_GROUP_MEMBER:
        return
    rank, size = group.rank(), group.size()
    if timeout is None or timeout < timedelta(0):
        timeout_s = group.communicator.timeout_s
    else:
        timeout_s = timeout.total_seconds()  # none at all, too
    number = group.next_barrier()
    store, key = TorchStore(group.get_group_store()), f"monitored barrier/{number}"
    if rank:
        store.set(f"{key}/{rank}", b"")
        try:
            verdict = store.get(f"{key}/verdict", timeout_s=timeout_s + 5).decode()
        except DeadlineExceeded:
            raise _late(group, [0], timeout_s) from None
        missing = [int(number) for number in verdict.split()]
    else:
        missing = _missing(store, key, size, timeout_s, wait_all_ranks)
        store.set(f"{key}/verdict", " ".join(map(str, missing)).encode())
    store.forget_after(size, [f"{key}/{name}" for name in ("verdict", *range(1, size))], f"{key}/read")
    if missing:
        raise _late(group, missing, timeout_s)


def _missing(store: TorchStore, key: str, size: int, timeout_s: float, wait_all_ranks: bool) -> list[int]:
    deadline = time.monotonic() + timeout_s
    missing: list[int] = []
    for other in range(1, size):
        try:
            store.get(f"{key}/{other}", timeout_s=max(0.0, deadline - time.monotonic()))
        except DeadlineExceeded:
            missing.append(other)
            if not wait_all_ranks:
                break
    return missing


def _late(group: ProcessGroupPycomm, missing: list[int], timeout_s: float) -> DeadlineExceeded:
    ranks = f"Rank{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}"
    return DeadlineExceeded(
        f"{ranks} failed to pass monitoredBarrier in {timeout_s * 1000:.0f} ms; rank "
        f"{group.rank()} has passed it. See what the named ranks are doing",
        group=group.communicator.name,
        operation="monitored_barrier",
        ranks=missing,
    )


def shrink_group(
    ranks_to_exclude: Sequence[int], group: ProcessGroupPycomm | None = None, *, abort: bool = False
) -> ProcessGroupPycomm:
    """Make a group of the ranks that remain; only they call this, and the excluded ones may be dead.

    ``torch.distributed.shrink_group`` puts the smaller group together from C++ parts that a Python group
    lacks; this is its stand-in, with the same outcome. When the default group shrinks, the new group becomes
    the default one and all others are destroyed, since the numbers of their ranks mean nothing any more.

    Parameters
    ----------
    ranks_to_exclude
        Ranks of the group that are to be left out.
    group
        The group; the default one when ``None``.
    abort
        End operations under way first.

    Raises
    ------
    UsageError
        Nobody is excluded, nobody remains, this rank is excluded, or a number is not a rank of the group.
    """
    old = c10d._get_default_group() if group is None else group
    excluded = sorted(set(ranks_to_exclude))
    if not excluded or excluded[0] < 0 or excluded[-1] >= old.size() or len(excluded) == old.size():
        raise UsageError(
            f"ranks_to_exclude={list(ranks_to_exclude)} must be some, but not all, of ranks 0 to "
            f"{old.size() - 1}"
        )
    if old.rank() in excluded:
        raise UsageError(
            f"rank {old.rank()} is to be excluded, so it must not call shrink_group; end the process"
        )
    if abort:
        old.communicator.abort("the group is being shrunk")
    is_default = old == c10d.GroupMember.WORLD
    remaining = [c10d.get_global_rank(old, rank) for rank in range(old.size()) if rank not in excluded]
    # Not by new_group(use_local_synchronization=True): its names count the groups that a rank is in, and the
    # ranks that remain may be in different numbers of them.
    new: ProcessGroupPycomm
    new, _ = c10d._new_process_group_helper(
        len(remaining),
        remaining.index(dist.get_rank()),
        remaining,
        dist.Backend(BACKEND_NAME),
        c10d._get_default_store(),
        f"{old.group_name}:without:{','.join(map(str, excluded))}",
        timeout=timedelta(seconds=old.communicator.timeout_s),
    )
    c10d._world.pg_group_ranks[new] = {member: rank for rank, member in enumerate(remaining)}
    if is_default:
        c10d._update_default_pg(new)
        for other in [pg for pg in c10d._world.pg_map if pg is not new]:
            dist.destroy_process_group(other)
    else:
        dist.destroy_process_group(old)
    return new


def communicator_of(group: ProcessGroupPycomm | None = None) -> Communicator:
    """Return the communicator behind a group (the default one when ``None``), for pycomm's own calls."""
    chosen: ProcessGroupPycomm = c10d._get_default_group() if group is None else group
    return chosen.communicator
