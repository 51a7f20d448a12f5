"""The published notation: texts, numbers, voxels, and what is said about mistakes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wengert.frontend.published import (
    KINDS,
    Draw,
    NotationMistake,
    Program,
    Rot,
    Trans,
    UnknownKind,
    WrongLoop,
    WrongParameters,
    from_blocks,
    parse,
)

from wengert import ErrorGroup

PRINTED = """\
draw('Leg', 'Cub', P=(-10,-6,-6), G=(9,1,1))
draw('Top', 'Rec', P=(0,0,0), G=(2,8,10))
draw('Top', 'Square', P=(0,0,0), G=(2,8))
draw('Top', 'Circle', P=(0,1,-1), G=(2,8))
draw('Back', 'Cub', P=(0,-8,-6), G=(12,2,12), theta=14°)
for(i<2, 'Trans', u=(0,0,12))
    draw('Leg', 'Cub', P=(-10,-6,-6)+i*u, G=(9,1,1))
for(i<2, 'Trans', u1=(0,12,0))
    for(i<2, 'Trans', u2=(0,0,12))
        draw('Leg', 'Cub', P=(-10,-6,-6)+i*u1+j*u2, G=(9,1,1))
for(i<4, 'Rot', theta=90°, axis=(-10,0,0))
    draw('Base', 'Line', P1=(-10,0,0), P2=(-10,0,-6))
for(i<5, 'Rot', theta=72°, axis=(-6,0,0))
    draw('Connect', 'Line', P1=(-6,0,0), P2=(-10,0,-6))
draw('Connect', 'Line', P1=(-6,0,0), P2=(4,2,-6))
"""
AS_THE_AUTHORS_PRINT = """
for(i<4, 'Rot', theta=90°, axis=(-10,0,0)
    draw('Base', 'Line', P1=(-10,0,0), P2=(-10,0,-6), theta*i, axis)

for(i<5, 'Rot', theta=72°, axis=(-6,0,0)
    draw('Base', 'Line', P1=(-6,0,0), P2=(-10,0,-6), theta*i, axis)

for(i<2, 'Trans', u=(0,0,12))
    draw('Connect', 'Line', P1=(0,0,0)+i*u, P2=(4,2,0))+i*u
"""


def one(text: str) -> Any:
    (statement,) = parse(text).statements
    return statement


# Text


def test_canonical_text_is_read_and_printed_as_it_is() -> None:
    assert str(parse(PRINTED)) == PRINTED


def test_values_are_in_numeric_order() -> None:
    draws = {s.kind.number: s.values for s in parse(PRINTED).statements if isinstance(s, Draw)}
    assert draws == {
        1: (-10, -6, -6, 9, 1, 1),
        2: (0, 0, 0, 2, 8, 10),
        3: (0, 0, 0, 2, 8),
        4: (0, 1, -1, 2, 8),
        15: (0, -8, -6, 12, 2, 12, 3),
        17: (-6, 0, 0, 4, 2, -6, 1),
    }


def test_text_as_the_authors_print_it() -> None:
    arms, lines, moved = parse(AS_THE_AUTHORS_PRINT).statements
    assert arms == Rot(4, 1, Draw(KINDS[10], (-10, 0, 0, 1, 6, 0)))
    assert lines == Rot(5, 1, Draw(KINDS[17], (-6, 0, 0, -10, 0, -6, 1)))
    assert moved == Trans(2, (0, 0, 12), Draw(KINDS[17], (0, 0, 0, 4, 2, 0, 1)))


def test_layout_is_free() -> None:
    text = "# a leg\n\ndraw( \"Leg\",'Cub' ,P=(1, +2,-3),G=(4.0,5,6))  # here\r\n\n"
    assert one(text) == Draw(KINDS[1], (1, 2, -3, 4, 5, 6))
    assert parse("").statements == ()
    assert parse("# nothing\n").statements == ()


def test_a_loop_over_several_drawings_is_a_loop_for_each() -> None:
    text = """for(i<2, 'Trans', u=(0,0,9))
    draw('Leg', 'Cub', P=(0,0,0)+i*u, G=(1,1,1))
    draw('Locker', 'Cub', P=(1,0,0)+i*u, G=(1,1,1))
"""
    first, second = parse(text).statements
    assert (first.body.kind.part, second.body.kind.part) == ("Leg", "Locker")
    assert first.u == second.u == (0, 0, 9)


@pytest.mark.parametrize("angle, end", [*enumerate([(0, 1, -3), (0, 6, 2), (0, 1, 7), (0, -4, 2)])])
def test_arms_end_where_they_point(angle: int, end: tuple[int, ...]) -> None:
    text = f"draw('Base', 'Line', P1=(0,1,2), P2=({','.join(map(str, end))}))\n"
    assert one(text) == Draw(KINDS[10], (0, 1, 2, 1, 5, angle))
    assert str(parse(text)) == text


def test_what_the_published_form_leaves_out_is_printed() -> None:
    arm = Draw(KINDS[10], (0, 0, 0, 3, -2, 1))
    line = Draw(KINDS[17], (0, 0, 0, 1, 2, 3, 2))
    back = Draw(KINDS[15], (0, 0, 0, 2, 1, 1, 14))
    program = Program((arm, line, back))
    assert ", t=3, r=-2, angle=1)" in str(program)
    assert ", r=2)" in str(program)
    assert ", theta=81°, f=14)" in str(program)
    assert parse(str(program)) == program


def test_every_tilt_of_a_chair_is_found_from_its_angle() -> None:
    for t, f in itertools.product(range(4, 25), range(-8, 9)):
        text = str(Program((Draw(KINDS[15], (0, 0, 0, t, 1, 1, f)),)))
        assert "f=" not in text
        assert one(text).values[-1] == f


# Numbers


def test_blocks_hold_loops_above_their_bodies() -> None:
    blocks = parse(PRINTED).statements[5:9]
    numbers = Program(blocks).blocks()
    assert numbers.shape == (10, 3, 8)
    assert numbers[0].tolist()[:2] == [[19, 2, 0, 0, 12, 0, 0, 0], [1, -10, -6, -6, 9, 1, 1, 0]]
    assert numbers[1, :, 0].tolist() == [19, 19, 1]
    assert numbers[2].tolist()[0] == [20, 4, 1, 0, 0, 0, 0, 0]
    assert numbers[3, 1].tolist() == [17, -6, 0, 0, -10, 0, -6, 1]
    assert not numbers[4:].any()
    assert from_blocks(numbers + 0.3).statements == blocks


def test_blocks_that_are_no_program() -> None:
    block = np.zeros((2, 3, 8))
    block[0, 0, 0] = 3
    block[1, 0, :2] = (19, 4)
    with pytest.raises(WrongLoop, match="block 1: the loop has no body"):
        from_blocks(block)
    block[1, 0, 0] = 25
    with pytest.raises(UnknownKind, match="block 1: no kind has the number 25"):
        from_blocks(block)
    block[1, 0, 0] = 22  # Stop
    assert len(from_blocks(block).statements) == 1
    block[0, 1, 0] = 3
    with pytest.raises(WrongLoop, match="a drawing has no body"):
        from_blocks(block)
    with pytest.raises(NotationMistake, match=r"\[blocks, 3, 8\]"):
        from_blocks(np.zeros((3, 8)))
    for bad in (np.nan, np.inf, 1e12):
        with pytest.raises(NotationMistake, match="too large or no number"):
            from_blocks(np.full((1, 3, 8), bad))


def test_a_long_program_has_no_blocks() -> None:
    program = Program(parse(PRINTED).statements[:1] * 11)
    with pytest.raises(NotationMistake, match="too long for the numeric form"):
        program.blocks()


# Random programs

numbers = st.integers(-14, 14)
vectors = st.tuples(*[st.integers(-9, 9)] * 3)


@st.composite
def draws(draw: Any, among: tuple[int, ...] = tuple(KINDS)) -> Draw:
    kind = KINDS[draw(st.sampled_from(among))]
    values = [draw(numbers) for _ in kind.parameters]
    if kind.solid == "line":
        values[-1] = draw(st.integers(1, 3))
    return Draw(kind, tuple(values))


counts = st.integers(-1, 7)
loops = st.builds(Trans, counts, vectors, draws())
statements = (
    draws()
    | loops
    | st.builds(Trans, st.integers(0, 3), vectors, loops)
    | st.builds(Rot, counts, st.integers(-3, 9), draws((10, 17)))
)
programs = st.builds(Program, st.lists(statements, max_size=5).map(tuple))


@settings(deadline=None, max_examples=150)
@given(programs)
def test_what_is_printed_is_read_again(program: Program) -> None:
    again = parse(str(program))
    assert again == program
    assert str(again) == str(program)
    assert from_blocks(program.blocks()) == program
    np.testing.assert_array_equal(again.voxels(), program.voxels())


# Voxels


def by_the_table(number: int, v: tuple[int, ...], i: int, j: int, k: int) -> bool:
    """Whether cell (i, j, k) is in a solid, from the table of the notation, cell by cell."""
    h, a, b = i - 16, j - 16, k - 16
    if number in (1, 12, 13, 14, 16, 18):
        H, s1, s2, t, r1, r2 = v
        return H <= h < H + t and s1 <= a < s1 + r1 and s2 <= b < s2 + r2
    if number in (2, 5):
        H, c1, c2, t, r1, r2 = v
        return H <= h < H + t and c1 - r1 <= a < c1 + r1 and c2 - r2 <= b < c2 + r2
    if number in (3, 7, 9):
        return by_the_table(2, (*v, v[-1]), i, j, k)
    if number in (4, 6, 8):
        H, c1, c2, t, r = v
        return H <= h < H + t and np.hypot(a + 0.5 - c1, b + 0.5 - c2) <= 1.01 * r
    if number == 10:
        H, c1, c2, t, r, angle = v
        arm = [
            c1 - 1 <= a < c1 + 1 and c2 - r <= b < c2,
            c1 <= a < c1 + r and c2 - 1 <= b < c2 + 1,
            c1 - 1 <= a < c1 + 1 and c2 <= b < c2 + r,
            c1 - r <= a < c1 and c2 - 1 <= b < c2 + 1,
        ]
        return H <= h < H + t and arm[angle % 4]
    if number == 11:
        H, s1, s2, t, r1, r2 = v
        return H <= h < H + t and s1 - r1 <= a < s1 + r1 and s2 <= b < s2 + r2
    assert number == 15
    H, s1, s2, t, r1, r2, f = v
    if not H <= h < H + t:
        return False
    o = np.rint((h - H) * f / t + s1)
    return o <= a < o + r1 and s2 <= b < s2 + r2


def grid_by_the_table(number: int, values: tuple[int, ...]) -> np.ndarray:
    cells = itertools.product(range(32), repeat=3)
    flat = [by_the_table(number, values, *c) for c in cells]
    return np.array(flat).reshape(32, 32, 32)


@pytest.mark.parametrize("number", [n for n in KINDS if n != 17])
def test_solids_are_those_of_the_table(number: int) -> None:
    rng = np.random.default_rng(number)
    low = [-18, -14, -14, 0, 0, 0, -8]
    high = [8, 10, 10, 20, 12, 12, 8]
    count = len(KINDS[number].parameters)
    values = tuple(int(rng.integers(a, b)) for a, b in zip(low[:count], high))
    found = Program((Draw(KINDS[number], values),)).voxels()
    assert found.dtype == bool
    np.testing.assert_array_equal(found, grid_by_the_table(number, values))


def test_lines_are_the_cells_near_a_segment() -> None:
    """Every cell, measured between cell numbers; what random samples of the authors' rule hit."""
    start, end = np.array([-6, -3, 2]), np.array([5, 4, -1])
    found = Program((Draw(KINDS[17], (*start, *end, 1)),)).voxels()
    wanted = np.zeros_like(found)
    length = np.linalg.norm(end - start)
    for cell in itertools.product(range(32), repeat=3):
        offset = np.array(cell) - 16 - start
        along = offset @ (end - start) / length
        across = np.sqrt(max(offset @ offset - along**2, 0.0))
        wanted[cell] = -1e-5 <= along <= length + 1e-5 and across <= 1 + 1e-5
    np.testing.assert_array_equal(found, wanted)
    assert not Program((Draw(KINDS[17], (1, 1, 1, 1, 1, 1, 1)),)).voxels().any()


def test_loops_move_and_turn_their_bodies() -> None:
    def voxels(*rows: tuple[int, ...]) -> np.ndarray:
        return Program(tuple(Draw(KINDS[r[0]], r[1:]) for r in rows)).voxels()

    text = PRINTED.splitlines()
    nested = parse("\n".join(text[7:10])).voxels()
    corners = [(1, -10, a, b, 9, 1, 1) for a in (-6, 6) for b in (-6, 6)]
    np.testing.assert_array_equal(nested, voxels(*corners))
    arms = parse("\n".join(text[10:12])).voxels()
    np.testing.assert_array_equal(arms, voxels(*[(10, -10, 0, 0, 1, 6, q) for q in range(4)]))
    lines = parse(
        "for(i<3, 'Rot', theta=120°, axis=(0,1,0))\n"
        "    draw('Connect', 'Line', P1=(0,1,0), P2=(-4,9,0))"
    ).voxels()
    ends = [(9, 0), (-3, 7), (-3, -7)]  # 8 along the first axis, turned by thirds and rounded
    np.testing.assert_array_equal(lines, voxels(*[(17, 0, 1, 0, -4, *e, 1) for e in ends]))


@pytest.mark.parametrize(
    "text",
    [
        "for(i<0, 'Trans', u=(0,0,1))\n    draw('Leg', 'Cub', P=(0,0,0)+i*u, G=(4,4,4))",
        "for(i<-3, 'Rot', theta=90°, axis=(0,0,0))\n"
        "    draw('Base', 'Line', P1=(0,0,0), P2=(0,0,6))",
        "draw('Leg', 'Cub', P=(0,0,0), G=(0,4,4))",
        "draw('Leg', 'Cub', P=(0,0,0), G=(4,-4,4))",
        "draw('Top', 'Circle', P=(0,0,0), G=(4,0))",
        "draw('Top', 'Circle', P=(0,0,0), G=(4,-3))",
        "draw('Leg', 'Cub', P=(90,0,0), G=(4,4,4))",
        "draw('Back', 'Cub', P=(-999999,0,0), G=(999,4,4), theta=20°)",
        "draw('Back', 'Cub', P=(0,0,0), G=(0,4,4), theta=0°)",
        "draw('Connect', 'Line', P1=(40,0,0), P2=(99,0,0))",
    ],
)
def test_what_draws_nothing(text: str) -> None:
    program = parse(text)
    assert not program.voxels().any()
    assert parse(str(program)) == program


def test_what_reaches_out_of_the_grid_is_cut_off() -> None:
    board = parse("draw('Back', 'Cub', P=(-20,-18,-9), G=(60,40,90), theta=0°)").voxels()
    wanted = np.zeros((32, 32, 32), bool)
    wanted[:, :, 7:] = True
    wanted[:, 22 + 16 :, :] = False
    np.testing.assert_array_equal(board, wanted)


# Mistakes

BODY = "\n    draw('Leg', 'Cub', P=(0,0,0)+i*u, G=(1,1,1))"
MISTAKES = [
    ("draw('Lag', 'Cub', P=(0,0,0), G=(1,1,1))", UnknownKind, "1:6", "did you mean 'Leg'"),
    ("draw('Top', 'Cub', P=(0,0,0), G=(1,1,1))", UnknownKind, "1:6", "'Rec' or 'Square' or"),
    ("draw('Leg', 'Cub', P=(0,0), G=(1,1,1))", WrongParameters, "1:20", "P=(h, s1, s2)"),
    ("draw('Top', 'Circle', P=(0,0,0), G=(1,1,1))", WrongParameters, "1:34", "G=(t, r)"),
    ("draw('Leg', 'Cub', P=(0,0,0))", WrongParameters, "1:6", "needs 'G'"),
    ("draw('Leg', 'Cub', P=(0,0,0), G=4)", WrongParameters, "1:31", "one number"),
    ("draw('Leg', 'Cub', P=(0,0,0), G=(1,1,1), theta=4)", WrongParameters, "1:42", "no parameter"),
    ("draw('Leg', 'Cub', P=(0,0,0), P=(1,1,1))", WrongParameters, "1:31", "given twice"),
    ("draw('Leg', 'Cub', P=(0,0,0.5), G=(1,1,1))", WrongParameters, "1:27", "whole numbers"),
    ("draw('Leg', 'Cub', P=(0,0,nan), G=(1,1,1))", NotationMistake, "1:27", "a whole number"),
    ("draw('Leg', 'Cub', P=(0,0,10000000), G=(1,1,1))", WrongParameters, "1:6", "too large"),
    ("draw('Back', 'Cub', P=(0,0,0), G=(1,1,1))", WrongParameters, "1:6", "needs 'theta'"),
    ("draw('Base', 'Line', P1=(0,0,0), P2=(0,3,3))", WrongParameters, "1:34", "'Connect'"),
    ("draw('Connect', 'Line', P1=(0,0,0), P2=(1,1,1), r=0)", WrongParameters, "1:6", "radius"),
    ("draw('Leg', 'Cub', P=(0,0,0)+i*u, G=(1,1,1))", WrongParameters, "1:20", "no shift|other"),
    ("draw('Leg', 'Cub', P=(0,0,0)", NotationMistake, "1:29", "')' or ','"),
    ("drew('Leg')", NotationMistake, "1:1", "'draw' or 'for'"),
    ("for(i<2, 'Trans', u=(0,1))" + BODY, WrongParameters, "1:19", "u=(h, a, b)"),
    ("for(i<2, 'Spin', u=(0,0,1))" + BODY, UnknownKind, "1:10", "'Trans' or 'Rot'"),
    ("for(i<2, 'Trans', u1=(0,0,1))" + BODY, WrongParameters, "2:24", r"P=(...)+i*u1"),
    ("for(i<2, 'Trans', w=(0,0,1))" + BODY, WrongParameters, "1:19", "no parameter 'w'"),
    ("for(i<2000000000, 'Trans', u=(0,0,1))" + BODY, WrongLoop, "1:5", "at most 4096"),
    ("for(i<2, 'Rot', theta=90)\n    draw('Top', 'Circle', P=(0,0,0), G=(1,1))", WrongLoop, "1:5", "turn"),
    (
        "for(i<4, 'Rot', theta=90, axis=(0,0,1))\n    draw('Base', 'Line', P1=(0,0,0), P2=(0,0,4))",
        WrongLoop,
        "1:27",
        "own start",
    ),
    (
        "for(i<4, 'Rot', theta=10)\n    draw('Connect', 'Line', P1=(0,0,0), P2=(1,0,4))",
        WrongLoop,
        "1:17",
        "theta=90°",
    ),
    ("for(i<2, 'Trans', u=(0,0,1))\ndraw('Leg')", NotationMistake, "2:1", "indented line"),
    ("for(i<2, 'Trans', u=(0,0,1))", NotationMistake, "1:1", "body of the loop is missing"),
    (
        "for(i<2, 'Trans', u=(0,0,1))" + BODY + "\n  draw('Leg')",
        NotationMistake,
        "3:1",
        "no open loop",
    ),
]  # fmt: skip


@pytest.mark.parametrize("text, kind, place, said", MISTAKES)
def test_mistakes_are_shown_where_they_are(
    text: str, kind: type[NotationMistake], place: str, said: str
) -> None:
    with pytest.raises(kind) as caught:
        parse(text, "chair.txt")
    message = str(caught.value)
    assert message.startswith(f"chair.txt:{place}: ")
    assert any(part in message for part in said.split("|"))
    line = text.splitlines()[int(place.split(":")[0]) - 1]
    assert f" | {line}\n" in message
    assert "^" in message.splitlines()[2]


def test_mistakes_of_several_statements_are_told_together() -> None:
    good = "draw('Leg', 'Cub', P=(0,0,0), G=(1,1,1))\n"
    bad = "draw('Leg', 'Cub', P=(0,0,0), G=(1,1))\n"
    with pytest.raises(ErrorGroup) as caught:
        parse(bad + good + bad, "chair.txt")
    assert [str(e.span) for e in caught.value.errors] == ["chair.txt:1:31", "chair.txt:3:31"]


def test_loops_nest_two_deep_and_rot_stands_alone() -> None:
    deep = (
        "for(i<2, 'Trans', u=(0,0,1))\n  for(i<2, 'Trans', u1=(0,0,1))\n    for(i<2, 'Trans', u2=(0,0,1))"
        "\n      draw('Leg', 'Cub', P=(0,0,0)+i*u+j*u1+k*u2, G=(1,1,1))"
    )
    with pytest.raises(NotationMistake, match="two deep"):
        parse(deep)
    both = (
        "for(i<2, 'Trans', u=(0,0,1))\n  for(i<4, 'Rot', theta=90)\n"
        "    draw('Base', 'Line', P1=(0,0,0)+i*u, P2=(0,0,3)+i*u)"
    )
    with pytest.raises(WrongLoop, match="stands alone"):
        parse(both)


def test_statements_made_in_python_are_checked() -> None:
    with pytest.raises(WrongParameters, match="'Leg', 'Cub' has 6 parameters"):
        Draw(KINDS[1], (1, 2, 3))
    with pytest.raises(WrongParameters, match="no whole number"):
        Draw(KINDS[1], (1, 2, 3, 4, 5, float("nan")))  # type: ignore[arg-type]
    with pytest.raises(WrongLoop, match="does not turn"):
        Rot(3, 1, Draw(KINDS[1], (0,) * 6))
    with pytest.raises(NotationMistake, match="drawings and loops"):
        Program(("Leg",))  # type: ignore[arg-type]
