"""Mistakes in `.wg` source that are found without running or typing anything."""

from __future__ import annotations

from ..ir.errors import WengertError


class SyntaxMistake(WengertError):
    """Text that is not of the language."""


class IndentationMistake(SyntaxMistake):
    """A line indented to no open block, a block without lines, or tabs mixed with spaces."""


class UnclosedBracket(SyntaxMistake):
    """A bracket or a string without its end."""


class SourceError(WengertError):
    """A file that is missing, unreadable, or not UTF-8 text."""


class ImportMistake(WengertError):
    """An import that finds nothing, or that imports itself in a circle."""


class DuplicateName(WengertError):
    """Two declarations, parameters or fields of one name."""


class UnknownName(WengertError):
    """A name that nothing in scope declares."""


class UnknownType(WengertError):
    """A type that is neither built in nor a record."""


class MisplacedStatement(WengertError):
    """A statement that has no meaning where it stands."""


class MissingReturn(WengertError):
    """A function that can end without returning a value."""


class WrongArguments(WengertError):
    """A call of a declared function with too many, too few or unknown arguments."""
