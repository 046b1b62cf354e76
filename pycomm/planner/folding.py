"""Folding any number of ranks onto a power of two, for algorithms that pair ranks by their bits.

::

      n = 6, m = 4:    rank    0   1   2   3   4   5
                       core        0       1   2   3
                       extra  (0)     (1)

The first 2(n-m) ranks form pairs. The even one of a pair is an *extra*: it gives its input to the odd one,
waits, and is given the result. The others are *cores*, numbered 0 to m-1.

A core answers for its *group*: its own block and its extra's. Groups of consecutive cores are consecutive
blocks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Fold"]

Array = npt.NDArray[np.int64]


class Fold:
    """Who is a core and who is an extra.

    Attributes
    ----------
    size, bits : int
        Number of cores, a power of two, and its logarithm.
    extras : int
        Number of extras; the extra of core j < extras is rank 2j.
    number : array
        0 .. size-1.
    cores : array
        Rank of each core.
    """

    def __init__(self, n: int) -> None:
        self.bits = n.bit_length() - 1
        self.size = 1 << self.bits
        self.extras = n - self.size
        self.number: Array = np.arange(self.size, dtype=np.int64)
        self.cores: Array = self.number + np.minimum(self.number + 1, self.extras)

    @property
    def pairs(self) -> tuple[Array, Array]:
        """Extras and their cores."""
        return 2 * self.number[: self.extras], self.cores[: self.extras]

    def partner(self, bit: int) -> Array:
        """Rank of the core whose number differs in ``bit``, for each core."""
        partners: Array = self.cores[self.number ^ (1 << bit)]
        return partners

    def start(self, core: Array) -> Array:
        """First block of each core's group; of one past the last core: n."""
        first: Array = core + np.minimum(core, self.extras)
        return first

    def largest(self, bit: int) -> int:
        """Blocks of the first 2^bit groups, which are the largest."""
        return (1 << bit) + min(1 << bit, self.extras)

    def steps(self) -> int:
        """Count the messages of the longest chain: from an extra through all bits, and to an extra.

        Through all bits a chain leads from a core to the one with the opposite number; both ends have extras
        only if more than half of the cores do.
        """
        return self.bits + (self.extras > 0) + (2 * self.extras > self.size)
