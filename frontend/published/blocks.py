"""The numeric form: blocks of at most three steps, each the number of a kind and parameters.

A drawing is a block of one step; a loop is the step of the loop with that of its body below it.
Unused steps, parameters and blocks are 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .errors import NotationMistake, UnknownKind, WrongLoop
from .kinds import END, KINDS, ROT, STOP, STOP_SIGN, TRANS
from .model import Draw, Rot, Statement, Trans

BLOCKS, STEPS, PARAMETERS = 10, 3, 7

Step = tuple[int, tuple[int, ...]]


def blocks_of(statements: Sequence[Statement]) -> npt.NDArray[np.int32]:
    """int32[10, 3, 8]: for each step of each block the number of its kind, then 7 parameters.

    Raises NotationMistake where there are more than 10 of them.
    """
    if len(statements) > BLOCKS:
        raise NotationMistake(
            "the program is too long for the numeric form",
            statements[BLOCKS].span,
            expected=f"at most {BLOCKS} statements",
            found=str(len(statements)),
        )
    out = np.zeros((BLOCKS, STEPS, 1 + PARAMETERS), np.int32)
    for block, statement in zip(out, statements):
        for row, (number, values) in zip(block, _steps(statement)):
            row[: 1 + len(values)] = (number, *values)
    return out


def _steps(statement: Statement) -> list[Step]:
    match statement:
        case Draw(kind, values):
            return [(kind.number, values)]
        case Trans(count, u, body):
            return [(TRANS, (count, *u)), *_steps(body)]
        case Rot(count, increment, body):
            return [(ROT, (count, increment)), *_steps(body)]


def statements_of(blocks: npt.ArrayLike) -> list[Statement]:
    """The statements of numbers [blocks, 3, 8]. Raises NotationMistake, naming the block."""
    array = _rounded(blocks)
    statements: list[Statement] = []
    for number, block in enumerate(array):
        if block[0, 0] == STOP_SIGN:
            break
        steps = [row.tolist() for row in block if row[0] not in (STOP, END, STOP_SIGN)]
        if not steps:
            continue
        try:
            statements.append(_statement(steps))
        except NotationMistake as error:
            raise type(error)(
                f"block {number}: {error.summary}",
                expected=error.expected,
                found=error.found,
                hint=error.hint,
            ) from None
    return statements


def _rounded(blocks: npt.ArrayLike) -> npt.NDArray[np.int64]:
    try:
        array = np.asarray(blocks, float)
    except (TypeError, ValueError):
        raise NotationMistake("blocks are an array of numbers") from None
    if array.ndim != 3 or array.shape[1:] != (STEPS, 1 + PARAMETERS):
        raise NotationMistake(
            "this is no array of blocks",
            expected=f"[blocks, {STEPS}, {1 + PARAMETERS}]",
            found=str(list(array.shape)),
        )
    if not np.isfinite(array).all() or np.abs(array).max(initial=0) > 2**31:
        raise NotationMistake("a parameter is too large or no number")
    return np.rint(array).astype(np.int64)


def _statement(steps: list[list[int]]) -> Statement:
    """The statement of steps, the outermost first."""
    number, *values = steps[0]
    if number in (TRANS, ROT):
        if len(steps) == 1:
            raise WrongLoop("the loop has no body")
        body = _statement(steps[1:])
        if number == TRANS:
            return Trans(values[0], (values[1], values[2], values[3]), body)  # type: ignore[arg-type]
        return Rot(values[0], values[1], body)  # type: ignore[arg-type]
    if number not in KINDS:
        raise UnknownKind(f"no kind has the number {number}", expected=f"1 to {ROT}")
    if len(steps) > 1:
        raise WrongLoop("a drawing has no body", found=f"number {steps[1][0]} below it")
    kind = KINDS[number]
    if kind.solid == "line" and values[-1] == 0:
        values[-1] = 1
    return Draw(kind, tuple(values[: len(kind.parameters)]))
