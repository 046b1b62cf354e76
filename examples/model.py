"""A small transformer that predicts the next character, in parts that parallelism can name."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Attention", "Block", "FeedForward", "Shape", "Transformer", "loss_of"]


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the model; every one but ``layers`` can be divided by 2, 4 and 8."""

    layers: int = 4
    width: int = 128
    heads: int = 8
    length: int = 64
    characters: int = 128  # ASCII


class Attention(nn.Module):
    """Causal attention over as many heads as its projections have rows for."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.head_width = shape.width // shape.heads
        self.query, self.key, self.value, self.out = (
            nn.Linear(shape.width, shape.width, bias=False) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, length, width) to the same shape."""
        query, key, value = (
            part(x).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers with a bend between them."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.up = nn.Linear(shape.width, 4 * shape.width, bias=False)
        self.down = nn.Linear(4 * shape.width, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to the same shape."""
        return self.down(F.gelu(self.up(x)))


class Block(nn.Module):
    """One layer: attention, then a feed-forward network, each on a normalised input and added to it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(shape.width), Attention(shape)
        self.feed_forward_norm, self.feed_forward = nn.LayerNorm(shape.width), FeedForward(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, length, width) to the same shape."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))


class Transformer(nn.Module):
    """Characters in, logits of the next characters out.

    Made whole, and the same on every rank that seeds torch alike; :meth:`keep` cuts it to one pipeline stage.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.characters: nn.Embedding | None = nn.Embedding(shape.characters, shape.width)
        self.positions: nn.Embedding | None = nn.Embedding(shape.length, shape.width)
        self.blocks = nn.ModuleDict({str(number): Block(shape) for number in range(shape.layers)})
        self.norm: nn.LayerNorm | None = nn.LayerNorm(shape.width)
        self.head: nn.Linear | None = nn.Linear(shape.width, shape.characters, bias=False)

    def keep(self, stage: int, stages: int) -> None:
        """Drop the layers of all pipeline stages but one."""
        numbers = list(self.blocks)
        for number in numbers:
            if int(number) * stages // len(numbers) != stage:
                del self.blocks[number]
        if stage > 0:
            self.characters = self.positions = None
        if stage < stages - 1:
            self.norm = self.head = None

    def forward(self, x: Tensor) -> Tensor:
        """Map characters, or what the stage before returned, to logits, or what the next stage takes."""
        if self.characters is not None and self.positions is not None:
            places = torch.arange(x.size(1), device=x.device).unsqueeze(0)
            x = self.characters(x) + self.positions(places)
        for block in self.blocks.values():
            x = block(x)
        if self.norm is not None and self.head is not None:
            x = self.head(self.norm(x))
        return x


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of (batch, length, characters) against (batch, length), in nats per character."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())
