"""Mistakes that show when a program is lowered for given argument types: one class a kind.

Each knows the calls it happened under, so that a message from inside a library function
also points at the user's line.
"""

from __future__ import annotations

from ..ir.errors import WengertError
from ..ir.span import Span

SHOWN_CALLS = 3


class Mistake(WengertError):
    """The root of these errors. `calls` are the places of the calls around it, inner first."""

    calls: tuple[Span, ...] = ()

    def render(self) -> str:
        """The message, then the calls that led to it."""
        lines = [super().render()]
        lines += [f"  in the call at {span}" for span in self.calls[:SHOWN_CALLS]]
        if len(self.calls) > SHOWN_CALLS:
            lines.append(f"  ... and {len(self.calls) - SHOWN_CALLS} calls around that")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()


class TypeMistake(Mistake):
    """Values of a kind that does not fit what is done with them."""


class DTypeMistake(TypeMistake):
    """Element types that do not go together: nothing is converted silently."""


class SizeMistake(TypeMistake):
    """Shapes or sizes that disagree, or that no array can have."""


class IndexMistake(TypeMistake):
    """An index out of range, or one that selects nothing sensible."""


class StaticNeeded(TypeMistake):
    """A run-time value where one known when compiling is needed."""


class CallMistake(TypeMistake):
    """A call with too many, too few or unknown arguments, or of something not callable."""


class RecursionMistake(Mistake):
    """A function that calls itself without end, or calls that nest too deeply."""


class UnboundName(Mistake):
    """A name that only some of the ways to this line bind."""


class BranchMistake(TypeMistake):
    """Branches of an `if` or a `switch` that give values of different types."""


class LoopMistake(TypeMistake):
    """A name whose type changes from one iteration to the next, or a `return` in a loop."""


class DerivativeMistake(TypeMistake):
    """A derivative of something that has none, or a derivative rule that does not fit."""


class TreeLabelMistake(Mistake):
    """A label that no vocabulary has."""


class AssertionFailed(Mistake):
    """An `assert` of the program that does not hold for these sizes."""


class AddressMistake(Mistake):
    """An address used twice, or choices that a program does not have, or lacks."""


class StrategyMistake(TypeMistake):
    """A gradient strategy that a distribution does not have, or at a place for none."""


class SupportMistake(TypeMistake):
    """A guide that can choose what the model cannot."""


class ShapeMistake(TypeMistake):
    """A shape program that draws what is no shape, or where nothing can be drawn."""


class Poisoned(Exception):
    """Use of a value that an error already reported left undefined; never shown."""
