"""Lightning over pycomm: see docs/clients/lightning.md."""

from __future__ import annotations

import lightning
import torch
import torch.distributed as dist
from common import Job, batches, options
from lightning.pytorch.strategies import DDPStrategy
from model import loss_of
from torch import Tensor
from torch.utils.data import DataLoader


class Module(lightning.LightningModule):
    """The transformer with its loss and its optimizer."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job, self.model = job, job.model()

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        """Compute the loss of this rank's part of the batch."""
        tokens, targets = (part.chunk(self.trainer.world_size)[self.global_rank] for part in batch)
        loss = loss_of(self.model(tokens), targets)
        mean = self.trainer.strategy.reduce(loss.detach(), reduce_op="mean")
        self.print(f"step {number:4d}  loss {mean.item():.6f}")
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return self.job.optimizer(self)

    def on_train_start(self) -> None:
        """Say what runs."""
        self.print(
            f"{type(self.trainer.model).__name__}, {self.trainer.world_size} processes, {dist.get_backend()}"
        )


if __name__ == "__main__":
    arguments = options("lightning").parse_args()
    job = Job(arguments, rank=0, size=1)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(process_group_backend=arguments.backend),
        max_epochs=1,
        use_distributed_sampler=False,  # a batch is cut in training_step
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(job), DataLoader(list(batches(job)), batch_size=None))
