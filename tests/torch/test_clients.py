"""What trainers use of torch, on pycomm: DDP, sharding, tensors over a mesh, compiled code, profiles."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from team import on_ranks
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel
from values import close, mine, same

STEPS, BATCH, WIDTH = 4, 8, 24


def model_of_all() -> nn.Sequential:
    """The same model on every rank."""
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Linear(WIDTH, 2 * WIDTH), nn.Tanh(), nn.Linear(2 * WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1)
    )


def batch_of(step: int, rank: int) -> Tensor:
    return torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(100 * step + rank))


def trained_alone(size: int) -> nn.Sequential:
    """The model after training on everybody's batches in one process."""
    model = model_of_all()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        optimizer.zero_grad()
        model(torch.cat([batch_of(step, rank) for rank in range(size)])).pow(2).mean().backward()
        optimizer.step()
    return model


def train(model: nn.Module, rank: int, optimizer: Any = None) -> None:
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        optimizer.zero_grad()
        model(batch_of(step, rank)).pow(2).mean().backward()
        optimizer.step()


def check_trained(model: nn.Module, size: int, what: str, roundings: int = 100) -> None:
    """Every parameter, whole or sharded, is what training alone gives."""
    for (name, got), want in zip(model.named_parameters(), trained_alone(size).parameters(), strict=True):
        whole = got.full_tensor() if isinstance(got, DTensor) else got
        close(whole.detach(), want.detach(), f"{what}: {name}", roundings=roundings)


@on_ranks(2, 4)
def test_ddp(rank: int, size: int) -> None:
    for name, options in {
        "plain": {},
        "many buckets": {"bucket_cap_mb": 0.001},
        "views": {"gradient_as_bucket_view": True},
        "static": {"static_graph": True},
        "unused": {"find_unused_parameters": True},
    }.items():
        model = DistributedDataParallel(model_of_all(), **options)
        train(model, rank)
        check_trained(model.module, size, name)


@on_ranks(2)
def test_ddp_makes_models_equal(rank: int, size: int) -> None:
    """Rank 0's parameters are everybody's; gradients add up; ranks may have different numbers of batches."""
    torch.manual_seed(rank)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    everybody = [torch.zeros(4, 4) for _ in range(size)]
    dist.all_gather(everybody, model.module[0].weight.detach())
    same(everybody[0], everybody[1], "weights")
    with model.no_sync():
        model(batch_of(0, rank)[:, :4]).sum().backward()
    alone = model.module[0].bias.grad.clone()
    model(batch_of(1, rank)[:, :4]).sum().backward()
    assert not alone.equal(model.module[0].bias.grad) or rank == 0
    with model.join():
        for step in range(1 + rank):  # rank 1 has more batches
            model(batch_of(step, rank)[:, :4]).sum().backward()


@on_ranks(2, 4)
def test_ddp_hooks(rank: int, size: int) -> None:
    for name, hook, roundings in (
        ("allreduce", default_hooks.allreduce_hook, 100),
        ("fp16", default_hooks.fp16_compress_hook, 2**14),  # float16 has 13 bits fewer
    ):
        model = DistributedDataParallel(model_of_all(), bucket_cap_mb=0.001)
        model.register_comm_hook(None, hook)
        train(model, rank)
        check_trained(model.module, size, name, roundings)


@on_ranks(2)
def test_power_sgd(rank: int, size: int) -> None:
    """Its callbacks start collectives and wait for them; what ranks hold stays equal, and the loss falls."""
    torch.manual_seed(7)
    model = DistributedDataParallel(
        nn.Sequential(nn.Linear(100, 100, bias=False), nn.Linear(100, 10, bias=False))
    )
    state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=4, start_powerSGD_iter=2)
    model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    x, losses = torch.randn(64, 100, generator=torch.Generator().manual_seed(rank)), []
    for _ in range(10):
        optimizer.zero_grad()
        loss = (model(x) - 1).pow(2).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0], losses
    for parameter in model.parameters():
        everybody = [torch.zeros_like(parameter) for _ in range(size)]
        dist.all_gather(everybody, parameter.detach())
        same(everybody[0], everybody[1], "parameters")


@on_ranks(2)
def test_zero_optimizer(rank: int, size: int) -> None:
    from torch.distributed.optim import ZeroRedundancyOptimizer  # its import warns of what torch itself uses

    model = DistributedDataParallel(model_of_all())
    train(model, rank, ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, lr=0.1))
    check_trained(model.module, size, "ZeRO")


@on_ranks(2, 4)
def test_fsdp2(rank: int, size: int) -> None:
    model = model_of_all()
    mesh = init_device_mesh("cpu", (size,))
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    train(model, rank)
    check_trained(model, size, "FSDP2")


@on_ranks(4)
def test_hsdp(rank: int, size: int) -> None:
    """Sharded within pairs, replicated between them."""
    model = model_of_all()
    fully_shard(model, mesh=init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")))
    train(model, rank)
    check_trained(model, size, "HSDP")


@on_ranks(2, 4)
def test_dtensor(rank: int, size: int) -> None:
    mesh = init_device_mesh("cpu", (size,))
    whole = torch.arange(7.0 * size * 3).reshape(7 * size, 3)[: 7 * size - 2]  # does not divide evenly
    for start in (Shard(0), Shard(1), Replicate()):
        tensor = distribute_tensor(whole, mesh, [start])
        for end in (Replicate(), Shard(0), Shard(1)):
            same(tensor.redistribute(mesh, [end]).full_tensor(), whole, f"{start} to {end}")
    partial = DTensor.from_local(mine(rank, (4, 4)), mesh, [Partial()])
    same(partial.full_tensor(), sum(mine(r, (4, 4)) for r in range(size)), "partial sums")
    a = distribute_tensor(torch.arange(16.0).reshape(4, 4), mesh, [Shard(1)])
    b = distribute_tensor(torch.eye(4) * 2, mesh, [Shard(0)])
    same((a @ b).full_tensor(), torch.arange(16.0).reshape(4, 4) * 2, "product")


@on_ranks(2)
def test_tensor_parallel(rank: int, size: int) -> None:
    model, x = model_of_all(), batch_of(0, 0)
    reference = copy.deepcopy(model)
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    parallelize_module(model, init_device_mesh("cpu", (size,)), plan)
    model(x).sum().backward()
    reference(x).sum().backward()
    for (name, got), want in zip(model.named_parameters(), reference.parameters(), strict=True):
        gradient = got.grad.full_tensor() if isinstance(got.grad, DTensor) else got.grad
        close(gradient, want.grad, name, roundings=50)


def functional_calls(x: Tensor, group: list[int]) -> tuple[Tensor, ...]:
    size = len(group)
    return (
        functional.all_reduce(x, "sum", group) + 1,
        functional.all_gather_tensor(x, 0, group) * 2,
        functional.reduce_scatter_tensor(x.repeat(size), "sum", 0, group),
        functional.all_to_all_single(x.repeat(size), None, None, group),
        functional.broadcast(x, 0, group),
    )


def check_functional(call: Callable[..., tuple[Tensor, ...]], rank: int, size: int) -> None:
    inputs = [mine(r, 6) for r in range(size)]
    total = sum(inputs)
    results = call(mine(rank, 6), list(range(size)))
    wanted = (total + 1, torch.cat(inputs) * 2, total, torch.cat(inputs), inputs[0])
    for i, (got, want) in enumerate(zip(results, wanted, strict=True)):
        same(got + 0, want, f"call {i}")


@on_ranks(2, 4)
def test_functional_collectives(rank: int, size: int) -> None:
    check_functional(functional_calls, rank, size)
    many = functional.all_reduce_coalesced([mine(rank, 3), mine(rank, 4)], "sum", list(range(size)))
    for got, count in zip(many, (3, 4), strict=True):
        same(got + 0, sum(mine(r, count) for r in range(size)), f"coalesced {count}")
    x = mine(rank, 6).requires_grad_()
    functional.all_gather_tensor_autograd(x, 0, list(range(size))).sum().backward()
    same(x.grad, torch.full((6,), float(size)), "gradient")


@on_ranks(2, limit_s=200)
def test_compiled_functional_collectives(rank: int, size: int) -> None:
    """Captured as a graph, without breaks."""
    torch._dynamo.reset()
    check_functional(torch.compile(functional_calls, backend="aot_eager", fullgraph=True), rank, size)

    def in_place(x: Tensor) -> Tensor:
        y = x * 2
        dist.all_reduce(y)
        return y + 1

    got = torch.compile(in_place, backend="aot_eager", fullgraph=True)(mine(rank, 6))
    same(got, sum(mine(r, 6) for r in range(size)) * 2 + 1, "in place")


def compiled_by_inductor(rank: int, size: int) -> None:
    torch._dynamo.reset()
    torch._inductor.config.compile_threads = 1

    def step(x: Tensor) -> Tensor:
        return functional.all_reduce((x * 2).sin(), "sum", list(range(size))).cos() + 1

    want = sum((mine(r, 50) * 2).sin() for r in range(size)).cos() + 1
    close(torch.compile(step, fullgraph=True)(mine(rank, 50)), want, "compiled", roundings=10)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_compiled_by_inductor(teams: Any) -> None:
    """Down to C++ code."""
    teams.of(2).run(compiled_by_inductor, limit_s=250)


@on_ranks(2)
def test_profiler(rank: int, size: int) -> None:
    """Each operation is an event with pycomm's name, blocking or not, with the shapes of its tensors."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True
    ) as profile:
        dist.all_reduce(torch.ones(5, 2))
        dist.all_reduce(torch.ones(3), async_op=True).wait()
        dist.all_gather_into_tensor(torch.zeros(size * 4), torch.ones(4))
        dist.broadcast(torch.ones(2), 0)
        dist.barrier()
        if rank:
            dist.send(torch.ones(2), 0)
        else:
            dist.recv(torch.ones(2), 1)
    events = [event for event in profile.events() if event.name.startswith("pycomm:")]
    names = [event.name.removeprefix("pycomm:") for event in events]
    message = "send" if rank else "recv"
    assert names == ["all_reduce", "all_reduce", "_all_gather_base", "broadcast", "barrier", message]
    assert events[0].input_shapes[0] == [5, 2]
    assert events[1].input_shapes[0] == [3]


@on_ranks(2)
def test_state_dicts_of_sharded_models(rank: int, size: int) -> None:
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    model = model_of_all()
    fully_shard(model, mesh=init_device_mesh("cpu", (size,)))
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if rank == 0:
        for name, want in model_of_all().state_dict().items():
            same(whole[name], want, name)
