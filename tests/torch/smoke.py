"""Two ranks that never import pycomm use it as backend of whatever torch is installed: ``python smoke.py``.

Run outside the checkout, with an installed wheel (``.ci/torch``): torch finds the backend by the entry point.
It needs nothing but torch and keeps to what every supported version has.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings


def rank_main(rank: int, size: int, store: str) -> None:
    warnings.simplefilter("ignore")  # other versions deprecate other things
    import torch
    import torch.distributed as dist
    import torch.distributed._functional_collectives as functional
    from torch.nn.parallel import DistributedDataParallel

    if "pycomm.torch.process_group" in sys.modules:
        raise AssertionError("import torch loaded all of the backend, and not only its registration")
    dist.init_process_group("pycomm", init_method=f"file://{store}", rank=rank, world_size=size)
    group = dist.group.WORLD

    def check(got: torch.Tensor, want: list[float], what: str) -> None:
        if got.tolist() != want:
            raise AssertionError(f"{what}: wanted {want}, got {got.tolist()}")

    tensor = torch.tensor([rank + 1.0])
    dist.all_reduce(tensor)
    check(tensor, [3.0], "all_reduce")
    future = dist.all_reduce(tensor, async_op=True).get_future().then(lambda done: done.value()[0] * 2)
    check(future.wait(), [12.0], "future")
    gathered = torch.zeros(2)
    dist.all_gather_into_tensor(gathered, torch.tensor([float(rank)]))
    check(gathered, [0.0, 1.0], "all_gather_into_tensor")
    scattered = torch.zeros(1)
    dist.reduce_scatter_tensor(scattered, torch.tensor([1.0, 10.0]) * (rank + 1))
    check(scattered, [[3.0], [30.0]][rank], "reduce_scatter_tensor")
    exchanged = torch.zeros(2)
    dist.all_to_all_single(exchanged, torch.tensor([0.0, 1.0]) + 10 * rank)
    check(exchanged, [[0.0, 10.0], [1.0, 11.0]][rank], "all_to_all_single")
    both = [torch.ones(2), torch.ones(3)]
    with dist._coalescing_manager():
        for one in both:
            dist.all_reduce(one)
    check(torch.cat(both), [2.0] * 5, "coalesced")
    things: list[object] = [None, None]
    dist.all_gather_object(things, {"rank": rank})
    if things != [{"rank": 0}, {"rank": 1}]:
        raise AssertionError(f"objects: {things}")
    if rank:
        dist.send(torch.ones(3), 0, tag=4)
    else:
        received = torch.zeros(3)
        if dist.recv(received, tag=4) != 1:
            raise AssertionError("the source of a message is wrong")
        check(received, [1.0] * 3, "recv")
    total = functional.wait_tensor(functional.all_reduce(torch.tensor([rank + 1.0]), "sum", group))
    check(total, [3.0], "functional all_reduce")
    pair = dist.new_group([0, 1])
    dist.barrier(pair)
    model = DistributedDataParallel(torch.nn.Linear(4, 1, bias=False))
    model(torch.full((2, 4), rank + 1.0)).sum().backward()
    check(model.module.weight.grad[0], [3.0] * 4, "gradients of DDP")
    try:
        dist.all_reduce(torch.ones(2 + rank))
    except RuntimeError as error:
        if "2" not in str(error) or "3" not in str(error):
            raise
    else:
        raise AssertionError("a mismatch went unnoticed")
    dist.barrier()
    dist.destroy_process_group()
    print(f"torch {torch.__version__}: rank {rank} of {size} is done", flush=True)


def main() -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, f"{folder}/store"]
        ranks = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(2)]
        try:
            codes = [process.wait(240) for process in ranks]
        finally:
            for process in ranks:
                process.kill()
    return max(codes, key=abs)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        rank_main(int(sys.argv[2]), 2, sys.argv[1])
    else:
        sys.exit(main())
