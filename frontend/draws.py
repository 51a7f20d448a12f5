"""The keys of a program's random choices: folded from addresses and loop indices.

A choice's key depends on nothing else, so that adding one leaves the draws of the others alone.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from ..ir import random
from ..ir.builder import Builder
from ..ir.core import Value
from ..ir.span import Span
from ..ir.types import I32, U32
from .type_errors import AddressMistake


@dataclass
class Draws:
    """Keys for one block of a program.

    key: of the block; taken: the addresses used in it so far; unnamed: how many draws without
    an address the whole function has made.
    """

    key: Value
    taken: dict[str, Span] = field(default_factory=dict)
    unnamed: list[int] = field(default_factory=lambda: [0])

    def branch(self) -> Draws:
        """For a region that runs at most once."""
        return Draws(self.key, dict(self.taken), self.unnamed)

    def trip(self, b: Builder, index: Value) -> Draws:
        """For the body of a loop, of trip `index` (an i32)."""
        if b.type(index).dtype is not I32:
            index = b.convert(index, dtype=I32)
        return Draws(random.fold_in(b, self.key, index), {}, self.unnamed)

    def at(self, b: Builder, address: str, span: Span) -> Value:
        """The key of the choice at `address`; AddressMistake where that is taken."""
        if address in self.taken:
            again = self.taken[address] == span
            raise AddressMistake(
                f"two choices have the address '{address}'",
                span,
                found="this line runs again" if again else f"the first is at {self.taken[address]}",
                hint="make the choices of each run in a program of its own, at its own name"
                if again
                else "give one of them another name",
            )
        self.taken[address] = span
        return self._folded(b, address)

    def next(self, b: Builder) -> Value:
        """The key of the next draw that has no address."""
        self.unnamed[0] += 1
        return self._folded(b, f"#{self.unnamed[0]}")

    def _folded(self, b: Builder, text: str) -> Value:
        word = b.const(zlib.crc32(text.encode()), U32)
        return random.fold_in(b, self.key, word)
