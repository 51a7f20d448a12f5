"""The published notation of shapes (Tian et al. 2019) from Python.

    program = wg.shapes.published.parse(text)
    program.voxels()          # bool[32, 32, 32] by the published rules
    program.blocks()          # the numbers that a network reads and writes
    print(program)            # canonical text

docs/published.md has the notation.
"""

from ...frontend.published import (
    KINDS,
    Draw,
    Kind,
    NotationMistake,
    Program,
    Rot,
    Trans,
    UnknownKind,
    WrongLoop,
    WrongParameters,
    find_kind,
    from_blocks,
    parse,
)

__all__ = [
    "KINDS",
    "Draw",
    "Kind",
    "NotationMistake",
    "Program",
    "Rot",
    "Trans",
    "UnknownKind",
    "WrongLoop",
    "WrongParameters",
    "find_kind",
    "from_blocks",
    "parse",
]
