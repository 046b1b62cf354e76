"""One rank of :mod:`pycomm.testing.processes`: ``python -m pycomm.testing.worker DIRECTORY RANK``."""

from __future__ import annotations

import faulthandler
import importlib
import importlib.util
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _load(name: str) -> Callable[..., Any]:
    place, _, qualname = name.rpartition(":")
    if place.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(place).stem, place)
        if spec is None or spec.loader is None:
            raise ImportError(f"{place} cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(place)
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part)
    target: Callable[..., Any] = found
    return target


def _run(directory: Path, rank: int) -> Any:
    name, backend, size, args, timeout_s = pickle.loads((directory / "task").read_bytes())
    target = _load(name)
    if backend is None:
        return target(rank, size, *args)
    import pycomm

    with pycomm.init(
        backend, rank=rank, size=size, rendezvous=f"file:{directory / 'store'}", timeout_s=timeout_s
    ) as comm:
        return target(comm, *args)


def main() -> int:
    """Run this rank; the exit code is 0 when its target returned."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    directory, rank = Path(sys.argv[1]), int(sys.argv[2])
    try:
        outcome = (True, _run(directory, rank))
    except BaseException:  # shown by the parent
        outcome = (False, traceback.format_exc())
    draft = directory / f"draft.{rank}"
    draft.write_bytes(pickle.dumps(outcome))
    draft.rename(directory / f"result.{rank}")
    return 0 if outcome[0] else 1


if __name__ == "__main__":
    sys.exit(main())
