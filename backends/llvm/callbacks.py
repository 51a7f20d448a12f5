"""Python called from compiled code: what it raises waits until that code has returned."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _State(threading.local):
    """What a callback on this thread raised since the last look."""

    failure: BaseException | None = None


_state = _State()


@contextmanager
def guarded() -> Iterator[None]:
    """Keep an exception, which has no way through compiled code and would be lost."""
    try:
        yield
    except BaseException as error:
        _state.failure = error


def raise_failure() -> None:
    """Raise what a callback on this thread met, once."""
    failure, _state.failure = _state.failure, None
    if failure is not None:
        raise failure
