"""Megatron-core's tensor parallelism over pycomm: see docs/clients/megatron.md."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.distributed as dist
from common import Job, batches, options
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.tensor_parallel import random
from megatron.core.transformer.transformer_config import TransformerConfig


class NoStates(random.CudaRNGStatesTracker):
    """Stands in for the states of CUDA's random numbers: on a CPU there are none."""

    @contextlib.contextmanager
    def fork(self, name: str = "") -> Iterator[None]:
        """Do nothing."""
        del name
        yield


# Megatron makes its buffers on "the current CUDA device". On a machine without one they belong on the host.
torch.cuda.current_device = lambda: torch.device("cpu")
random._CUDA_RNG_STATE_TRACKER, random._CUDA_RNG_STATE_TRACKER_INITIALIZED = NoStates(), True

arguments = options("Megatron-core").parse_args()
dist.init_process_group(arguments.backend)
parallel_state.initialize_model_parallel(tensor_model_parallel_size=dist.get_world_size())
job = Job(arguments, dist.get_rank(), dist.get_world_size())
shape = job.shape
torch.manual_seed(arguments.seed)
model = GPTModel(
    config=TransformerConfig(
        num_layers=shape.layers,
        hidden_size=shape.width,
        num_attention_heads=shape.heads,
        tensor_model_parallel_size=job.size,
        use_cpu_initialization=True,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        gradient_accumulation_fusion=False,
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
    ),
    transformer_layer_spec=get_gpt_layer_local_spec(),
    vocab_size=shape.characters,
    max_sequence_length=shape.length,
)
optimizer = job.optimizer(model)
places = torch.arange(shape.length).expand(arguments.batch, -1)
hidden = torch.ones(shape.length, shape.length, dtype=torch.bool).triu(1)[None, None]
if job.rank == 0:
    kind = type(model.decoder.layers[0].mlp.linear_fc1).__name__
    print(
        f"{kind}, {job.size} processes, {dist.get_backend(parallel_state.get_tensor_model_parallel_group())}"
    )
for number, (tokens, targets) in enumerate(batches(job)):
    loss = model(tokens, places, hidden, labels=targets).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if job.rank == 0:
        print(f"step {number:4d}  loss {loss.item():.6f}", flush=True)
parallel_state.destroy_model_parallel()
dist.destroy_process_group()
