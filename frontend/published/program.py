"""Programs of the published notation, and what can be made of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .blocks import blocks_of, statements_of
from .errors import NotationMistake
from .execute import Grid, voxels_of
from .model import Statement
from .read import read
from .write import text_of


@dataclass(frozen=True)
class Program:
    """Statements whose solids are united. `str(program)` is its canonical text."""

    statements: tuple[Statement, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "statements", tuple(self.statements))
        for s in self.statements:
            if not isinstance(s, Statement):
                raise NotationMistake(
                    "a program holds drawings and loops",
                    expected="Draw, Trans or Rot",
                    found=repr(s),
                )

    def __str__(self) -> str:
        return text_of(self.statements)

    def voxels(self) -> Grid:
        """The solid by the published rules: bool[32, 32, 32], indexed (height, first, second).

        What lies outside of the grid is cut off; sizes and counts below 1 draw nothing.
        """
        return voxels_of(self.statements)

    def blocks(self) -> npt.NDArray[np.int32]:
        """The numeric form, int32[10, 3, 8]: a kind's number and 7 parameters for each step.

        Raises NotationMistake where the program has more than 10 statements.
        """
        return blocks_of(self.statements)


def parse(text: str, path: str = "<text>") -> Program:
    """The program of a text. `path` is what messages call it.

    Raises NotationMistake or a subclass with file, line and column, or an ErrorGroup of them. A
    loop over several drawings becomes a loop for each.
    """
    return Program(tuple(read(text, path)))


def from_blocks(blocks: npt.ArrayLike) -> Program:
    """The program of numbers [blocks, 3, 8], such as a network puts out: they are rounded.

    Empty blocks are left out; a block that begins with 22 ends the program. A line's radius 0
    stands for 1. Raises NotationMistake, naming the block, for what is no program.
    """
    return Program(tuple(statements_of(blocks)))
