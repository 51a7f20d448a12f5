"""Pruned sampling of grids: the signs, and the values where they count, of plain sampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from wengert.passes.intervals import NoInterval
from wengert.runtime.shapes import pruned
from wengert.runtime.shapes.field import Field
from wengert.runtime.shapes.pruned import GridTooLarge, sample
from wengert.runtime.shapes.voxels import voxels

import wengert as wg

TEXT = """
fn drilled(p: real[2], r: real) -> real:
    plate = max(abs(p[0]) - 0.8, abs(p[1] * 1.1 + 0.1 * p[0]) - 0.6)
    holes = min(norm(p - 0.3) - r, min(norm(p + 0.3) - r, norm(p - [0.4, -0.3]) - 0.5 * r))
    return max(plate, -holes)

fn blob(p: real[3], r: real, at: real[3]) -> real:
    a = norm(p - at) - r
    b = max(abs(p[0] - 0.3) - 0.2, max(abs(p[1] * 1.2 + 0.1) - 0.1, abs(p[2]) - 0.4))
    h = max(0.1 - abs(a - b), 0.0)
    return min(a, b) - 2.5 * h * h + 0.02 * sin(p[0] * 20.0) * sin(p[2] * 17.0)

fn rings(p: real[2], radii: real[n]) -> real:
    d = 9.0
    for r in radii:
        d = min(d, abs(norm(p) - r) - 0.03)
    return d

fn odd(p: real[2]) -> real: return sqrt(p[0]) + sqrt(p[1]) - 1.0
fn flat(p: real[2]) -> real: return 0.0 * p[0]
fn full(p: real[2]) -> real: return norm(p) - 100.0
fn moved(p: real[2], r: real, turn: real) -> real:
    m = [[cos(turn), sin(turn)], [-sin(turn), cos(turn)]]
    q = m @ p
    return max(abs(q[0]) - r, abs(q[1]) - r) if turn > 0.1 else norm(q) - r
fn several(p: real[2]) -> real[2]: return p * 2.0
fn shaken(p: real[2], k: key) -> real: return norm(p) - 0.5 + 0.01 * uniform(fold_in(k, i32(p[0])))
fn endless(p: real[2]) -> real:
    s = p[0]
    while s < 1.0:
        s += 0.5
    return s - p[1]
"""


def axis(n: int) -> np.ndarray:
    return (np.arange(n) + 0.5) * (2 / n) - 1


def plainly(f: Any, axes: list[np.ndarray], **arguments: Any) -> np.ndarray:
    """The function at every point of the grid, as one batch."""
    dtype = f.program.real.numpy
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes)).astype(dtype)
    out = f.batched(points, axes=dict.fromkeys(arguments), **arguments)
    return np.asarray(out).reshape([len(x) for x in axes])


@pytest.fixture(scope="module")
def fields() -> wg.Program:
    return wg.compile(TEXT)


@pytest.mark.parametrize("shape", [(256, 256), (100, 33), (16, 16), (1, 300), (5, 5)])
def test_signs_are_those_of_plain_sampling(fields: Any, shape: tuple[int, int]) -> None:
    axes = [axis(n) for n in shape]
    found = sample(fields.drilled, axes, r=0.2)
    want = plainly(fields.drilled, axes, r=0.2)
    np.testing.assert_array_equal(found.inside, want <= 0)
    assert found.inside.shape == shape and found.values is None
    if shape == (256, 256):
        assert 0.02 < found.statistics.share < 0.4
        assert all(v >= e + f for _, v, e, f in found.statistics.cells)


@pytest.mark.parametrize("real", ["f32", "f64"])
@pytest.mark.parametrize("shape", [(64, 64, 64), (20, 33, 7)])
def test_octrees_of_smooth_unions(real: str, shape: tuple[int, ...]) -> None:
    blob = wg.compile(TEXT, real=real).blob
    axes = [axis(n) for n in shape]
    args: dict[str, Any] = {"r": 0.4, "at": [-0.2, 0.1, 0.05]}
    found = sample(blob, axes, values=True, **args)
    want = plainly(blob, axes, **args)
    np.testing.assert_array_equal(found.inside, want <= 0)
    assert found.values is not None and found.exact is not None
    np.testing.assert_array_equal(found.values[found.exact], want[found.exact])
    np.testing.assert_array_equal(found.values <= 0, want <= 0)
    assert found.exact.sum() == found.statistics.sampled


def test_a_halo_computes_both_sides_of_every_change_of_sign(fields: Any) -> None:
    axes = [axis(96)] * 2
    found = sample(fields.drilled, axes, values=True, halo=1, r=0.3)
    inside = found.inside
    for i in (0, 1):
        changes = np.diff(inside, axis=i)
        first, second = (np.take(found.exact, range(s, s + 95), axis=i) for s in (0, 1))
        assert changes.any() and first[changes].all() and second[changes].all()


def test_one_compiled_field_serves_every_grid_and_parameter(fields: Any) -> None:
    special = None
    for n, r in ((40, 0.1), (100, 0.3), (64, 0.0)):
        found = sample(fields.drilled, [axis(n)] * 2, r=r)
        want = plainly(fields.drilled, [axis(n)] * 2, r=r)
        np.testing.assert_array_equal(found.inside, want <= 0)
        special = special or fields.drilled._last
    kinds = [request.kind for request, _ in special._executables]
    assert kinds.count("cells") == kinds.count("points") == 1


def test_loops_conditions_and_arrays(fields: Any) -> None:
    axes = [axis(80)] * 2
    radii = np.linspace(0.1, 0.9, 40).astype(np.float32)
    np.testing.assert_array_equal(
        sample(fields.rings, axes, radii=radii).inside,
        plainly(fields.rings, axes, radii=radii) <= 0,
    )
    for turn in (0.05, 0.4):
        found = sample(fields.moved, axes, point="p", r=0.5, turn=turn)
        want = plainly(fields.moved, axes, r=0.5, turn=turn)
        np.testing.assert_array_equal(found.inside, want <= 0)


def test_nan_is_outside_and_never_pruned_away(fields: Any) -> None:
    axes = [axis(64)] * 2
    found = sample(fields.odd, axes)
    np.testing.assert_array_equal(found.inside, plainly(fields.odd, axes) <= 0)
    assert found.statistics.share > 0.7


def test_flat_and_full_fields(fields: Any) -> None:
    found = sample(fields.flat, [axis(40)] * 2)
    assert found.inside.all() and found.statistics.share == 1
    found = sample(fields.full, [axis(200)] * 2)
    assert found.inside.all() and found.statistics.sampled == 0
    found = sample(fields.full, [axis(200) + 1000] * 2, values=True)
    assert not found.inside.any() and found.statistics.sampled == 0
    assert found.values is not None and (found.values > 0).all()


@pytest.mark.parametrize("backend", ["interp", "xla"])
def test_other_backends(backend: str) -> None:
    f = wg.compile(TEXT, backend=backend).drilled
    axes = [axis(40), axis(24)]
    want = plainly(f, axes, r=0.25)
    sure = np.abs(want) > 1e-6
    np.testing.assert_array_equal(sample(f, axes, r=0.25).inside[sure], (want <= 0)[sure])


def test_threads_do_not_change_results(fields: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = [axis(200)] * 2
    one = sample(fields.drilled, axes, r=0.2)
    for count in (0, 1, 5):
        monkeypatch.setattr(pruned, "_threads", lambda count=count: count)
        other = sample(fields.drilled, axes, r=0.2)
        np.testing.assert_array_equal(one.inside, other.inside)
        assert other.statistics == one.statistics


def test_random_fields_are_sampled_alike() -> None:
    """Straight-line fields: many terms, shared parts, nested unions."""
    forms = [
        "{a} * {c}",
        "{a} + {b}",
        "{a} - {c}",
        "min({a}, {b})",
        "max({a}, {b})",
        "{a} * {a}",
        "abs({a} - {c})",
    ]
    for seed in range(6):
        rng = np.random.default_rng(seed)
        lines = ["fn f(p: real[2]) -> real:", "    v0 = p[0]", "    v1 = p[1]"]
        for i in range(2, 60):
            a, b = i - 1, int(rng.integers(max(0, i - 15), i))
            form = forms[int(rng.integers(len(forms)))]
            lines.append(
                f"    v{i} = " + form.format(a=f"v{a}", b=f"v{b}", c=f"{rng.uniform(-1, 1):.3f}")
            )
        f = wg.compile("\n".join([*lines, "    return v59 - 0.1", ""])).f
        axes = [axis(70)] * 2
        found = sample(f, axes, values=True)
        want = plainly(f, axes)
        np.testing.assert_array_equal(found.inside, want <= 0)
        np.testing.assert_array_equal(found.values[found.exact], want[found.exact])


def test_a_grid_too_large_for_memory_says_what_it_needs(fields: Any) -> None:
    with pytest.raises(GridTooLarge, match=r"20000 x 20000 x 20000 points.*memory") as error:
        sample(fields.blob, [np.linspace(0, 1, 20000)] * 3, r=0.4, at=[0.0, 0.0, 0.0])
    assert "7450.6 GiB" in str(error.value) and "free memory" in str(error.value)


@pytest.mark.parametrize(
    "axes,message",
    [
        ([np.arange(3.0)], "2 or 3 axes"),
        ([np.arange(3.0), np.array([0.0, 2.0, 1.0])], "axis 1 of the grid does not ascend"),
        ([np.arange(3.0), np.array([0.0, np.nan])], "does not ascend"),
        ([np.arange(3.0), np.array([])], "does not ascend"),
        ([np.arange(3.0)] * 3, "no point of 3 coordinates|expects|shape|size"),
    ],
)
def test_grids_that_do_not_fit(fields: Any, axes: Any, message: str) -> None:
    with pytest.raises(wg.WengertError, match=message):
        sample(fields.drilled, axes, r=0.2)


def test_functions_that_are_no_fields(fields: Any) -> None:
    axes = [axis(8)] * 2
    with pytest.raises(wg.WengertError, match="is no field"):
        sample(fields.several, axes)
    with pytest.raises(NoInterval, match="may never end"):
        sample(fields.endless, axes)
    with pytest.raises(NoInterval, match="key"):
        sample(fields.shaken, axes, k=wg.key(0))
    with pytest.raises(wg.WengertError, match="misses 1 argument 'r'"):
        sample(fields.drilled, axes)


VOXELS = """
fn ball(p: real[3], r: real) -> real: return norm(p) - r
fn stepped(p: real[3], r: real) -> real:
    s = norm(p)
    while s > 1.0:
        s -= 1.0
    return s - r
"""


@pytest.mark.parametrize("name", ["ball", "stepped"])
def test_voxels_are_cells_whose_centre_is_inside(name: str) -> None:
    """Of a field without intervals too, whose points are all computed."""
    f = getattr(wg.compile(VOXELS), name)
    found = voxels(Field(f, {"r": 0.6}), (20, 24, 30), (-1.5, (1.5, 1.5, 2.0)))
    axes = [-1.5 + (np.arange(n) + 0.5) * (size / n) for n, size in ((20, 3), (24, 3), (30, 3.5))]
    assert found.shape == (20, 24, 30) and found.dtype == bool and found.any()
    np.testing.assert_array_equal(found, plainly(f, axes, r=0.6) <= 0)


def test_grids_of_voxels_are_checked() -> None:
    field = Field(wg.compile(VOXELS).ball, {"r": 0.5})
    for grid in (0, 2.5, (4, 4), (4, 4, -1), "many"):
        with pytest.raises(wg.WengertError, match="a grid has a number of cells"):
            voxels(field, grid, (-1, 1))
    with pytest.raises(wg.WengertError, match="bounds are two corners"):
        voxels(field, 8, (1, -1))
    with pytest.raises(GridTooLarge):
        voxels(field, 100_000, (-1, 1))
    plain = Field(wg.compile(VOXELS).stepped, {"r": 0.5})
    with pytest.raises(GridTooLarge):
        voxels(plain, 100_000, (-1, 1))
