"""Programs as canonical text of the notation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .model import Draw, Rot, Statement, Trans
from .parts import arm_end, arm_of, line_degrees, push_of, theta_of

INDENT = " " * 4


def text_of(statements: Iterable[Statement]) -> str:
    """The text of statements, which reads back as the same ones.

    What the published form leaves out is written where reading would not find it again: `t` of
    an arm, `r` of a line, and `f`, `r` and `angle` where `theta` and `P2` don't tell them.
    """
    return "".join(line + "\n" for s in statements for line in _lines(s))


def _lines(statement: Statement) -> list[str]:
    match statement:
        case Draw():
            return [draw_text(statement, "")]
        case Rot(count, increment, body):
            theta = increment * 90 if body.kind.solid == "arm" else line_degrees(count)
            axis = _vector(body.position)
            head = f"for(i<{count}, 'Rot', theta={theta}°, axis={axis})"
            return [head, INDENT + draw_text(body, "")]
        case Trans(count, u, Draw() as body):
            return [_trans(count, "u", u), INDENT + draw_text(body, "+i*u")]
        case Trans(count, u, Trans(inner_count, inner_u, Draw() as body)):
            return [
                _trans(count, "u1", u),
                INDENT + _trans(inner_count, "u2", inner_u),
                2 * INDENT + draw_text(body, "+i*u1+j*u2"),
            ]
    raise AssertionError(statement)


def _trans(count: int, name: str, u: Sequence[int]) -> str:
    return f"for(i<{count}, 'Trans', {name}={_vector(u)})"


def _vector(values: Sequence[int]) -> str:
    return f"({','.join(map(str, values))})"


def draw_text(draw: Draw, shift: str) -> str:
    """A drawing on its line; `shift` stands behind each position."""
    kind, values = draw.kind, draw.values
    start = _vector(values[:3]) + shift
    extra = ""
    match kind.solid:
        case "arm":
            t, r, angle = values[3:]
            end = arm_end(values)
            extra = f", t={t}" * (t != 1)
            if arm_of(values[:3], end) != (r, angle):
                extra += f", r={r}, angle={angle}"
            where = f"P1={start}, P2={_vector(end)}{shift}"
        case "line":
            where = f"P1={start}, P2={_vector(values[3:6])}{shift}"
            extra = f", r={values[6]}" * (values[6] != 1)
        case "tilted":
            *size, f = values[3:]
            theta = theta_of(f, size[0])
            where = f"P={start}, G={_vector(size)}, theta={theta}°"
            extra = f", f={f}" * (push_of(theta, size[0]) != f)
        case _:
            where = f"P={start}, G={_vector(values[3:])}"
    return f"draw({kind}, {where}{extra})"
