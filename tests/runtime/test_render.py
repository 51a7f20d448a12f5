"""Pictures of fields: where rays meet shapes, normals, cameras, and what bad input gets."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from wengert.runtime.shapes.bounds import Box
from wengert.runtime.shapes.camera import Camera, around
from wengert.runtime.shapes.field import Field, UndefinedField
from wengert.runtime.shapes.rays import View, first_hits
from wengert.runtime.shapes.render import render, turntable

import wengert as wg

TEXT = """
fn ball(p: real[3], r: real) -> real: return sqrt(sum(p * p)) - r
fn box(p: real[3], h: real[3]) -> real: return max(abs(p) - h)
fn squashed(p: real[3], a: real) -> real: return (p[0] / a)^2 + p[1]^2 + (4.0 * p[2])^2 - 1.0
fn sheet(p: real[3], thin: real) -> real:
    return maximum(abs(p[0]) - thin, max(abs(p)) - 1.0)
fn half(p: real[3]) -> real: return p[2]
"""
BACK = {"azimuth": 0.0, "elevation": 0.0}


@pytest.fixture(scope="module")
def program():
    return wg.compile(TEXT, "seen.wg")


def rays(camera, rows, columns):
    """Starts and unit directions of all rays, from View."""
    view = View(camera, rows, columns)
    y, x = np.mgrid[0:rows, 0:columns] + 0.5
    start = view.points(x, y, np.zeros_like(x))
    along = view.points(x, y, np.ones_like(x)) - start
    return start, along / np.linalg.norm(along, axis=-1, keepdims=True)


@pytest.mark.parametrize("perspective", [True, False])
def test_ball(program, perspective):
    camera = Camera((3.0, -2.0, 1.5), (0.2, 0.1, 0.0), 2.6, perspective)
    picture = render(program.ball, size=(80, 64), camera=camera, smooth=False, r=1.0)
    start, along = rays(camera, 64, 80)
    b = (start * along).sum(axis=-1)
    square = b**2 - (start**2).sum(axis=-1) + 1
    hit = square > 0
    assert (picture.mask != hit).sum() <= 2  # where a ray touches the outline
    both = picture.mask & (square > 0.02)
    depth = -b - np.sqrt(np.where(hit, square, 0))
    np.testing.assert_allclose(picture.depth[both], depth[both], atol=1e-4)
    points = start + depth[..., None] * along
    np.testing.assert_allclose(picture.normals[both], points[both], atol=1e-3)
    assert (picture.parts == np.where(picture.mask, 0, -1)).all()
    assert (picture.pixels[~picture.mask] == 255).all()
    assert picture.pixels[picture.mask].min() < 255


def test_box_from_in_front(program):
    camera = Camera((5.0, 0.0, 0.0), height=4.0, perspective=False)
    picture = render(program.box, size=40, camera=camera, smooth=False, h=[1.0, 0.8, 0.5])
    rows, columns = np.nonzero(picture.mask)
    # A pixel is 0.1 wide: 10 rows of z, 16 columns of y.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (15, 24, 12, 27)
    assert picture.mask.sum() == 160
    np.testing.assert_allclose(picture.depth[picture.mask], 4.0, atol=1e-4)
    np.testing.assert_allclose(picture.normals[picture.mask], [[1, 0, 0]] * 160, atol=1e-6)


def test_no_distance_is_needed_and_thin_parts_are_seen(program):
    picture = render(program.squashed, size=64, a=3.0, smooth=False, **BACK, perspective=False)
    mesh_like = Field(program.squashed, {"a": 3.0})
    assert 0.0 < picture.mask.mean() < 0.2
    points = rays(around(Box(-np.ones(3), np.ones(3)), **BACK), 4, 4)[0]
    assert mesh_like.values(points.reshape(-1, 3)).min() > 0
    # Seen from its edge the sheet is a tenth of a pixel wide, where a ray runs along it.
    camera = Camera((0.0, -5.0, 0.0), height=3.1, perspective=False)
    seen = render(program.sheet, size=31, camera=camera, thin=0.005, smooth=False)
    assert seen.mask.sum(axis=1).max() == 1 and seen.mask.any(axis=1).sum() >= 19


def test_what_the_bounds_cut_off_shows_its_inside(program):
    camera = Camera((0.0, 0.0, 5.0), height=3.0, perspective=False)
    bounds = ((-1, -1, -1), (1, 1, 0.25))
    picture = render(program.ball, r=1.0, camera=camera, size=60, bounds=bounds, smooth=False)
    centre = picture.depth[30, 30], picture.normals[30, 30]
    np.testing.assert_allclose(centre[0], 4.75, atol=1e-3)
    np.testing.assert_allclose(centre[1], [0, 0, 1], atol=1e-6)
    floor = render(program.half, camera=camera, size=20, bounds=(-1, 1), smooth=False)
    np.testing.assert_allclose(floor.depth[floor.mask], 5.0, atol=1e-3)


def test_an_eye_inside_sees_the_nearest_plane(program):
    camera = Camera((0.0, 0.0, 0.0), (1.0, 0.0, 0.0))
    picture = render(program.ball, r=2.0, camera=camera, size=8, smooth=False)
    assert picture.mask.all() and picture.depth.max() < 0.01


def test_smooth_pictures_have_the_same_depths(program):
    rough, fine = (render(program.ball, r=1.0, size=32, smooth=s) for s in (False, True))
    np.testing.assert_array_equal(rough.depth, fine.depth)
    assert (rough.pixels != fine.pixels).any()
    difference = rough.pixels.astype(int) - fine.pixels
    assert np.abs(difference[12:20, 12:20]).max() < 16


def test_all_is_seen_from_everywhere(program):
    for picture in turntable(program.box, 5, h=[1.0, 0.2, 0.6], size=24, elevation=40.0):
        edge = np.ones((24, 24), bool)
        edge[1:-1, 1:-1] = False
        assert picture.mask.any() and not picture.mask[edge].any()


def test_an_empty_shape_gives_the_background(program):
    picture = render(program.ball, r=-1.0, size=(6, 4), background=(1, 2, 3))
    assert picture.pixels.shape == (4, 6, 3) and (picture.pixels == [1, 2, 3]).all()
    assert not picture.mask.any()
    behind = render(program.ball, r=1.0, size=4, camera=Camera((0, 0, 5), (0, 0, 9)))
    assert not behind.mask.any()


def test_bad_input(program):
    def fails(text, error=wg.CallError, function=program.ball, **options):
        with pytest.raises(error, match=text):
            render(function, **({"r": 1.0} | options))

    for size in (0, (4, 0), 2.5, (1, 2, 3), 10**6, True):
        fails("a number of pixels", size=size)
    for background in ((1, 2), (300, 0, 0), (0.5, 0.5, 0.5), "red"):
        fails("a colour is three", background=background)
    fails("finite angles", azimuth=np.nan)
    fails("finite angles", zoom=0)
    fails("no parameter 'q'", q=1)
    fails("not known near", UndefinedField, r=np.nan, bounds=(-1, 1), size=8)
    for bad in (((0, 0, 0), (0, 0, 0)), ((1, 2), (0, 0, 0)), ((np.inf, 0, 0), (0, 0, 0))):
        with pytest.raises(wg.CallError, match="a camera stands"):
            Camera(*bad)
    with pytest.raises(wg.CallError, match="1 to 1000 pictures"):
        turntable(program.ball, 0, r=1.0)
    with pytest.raises(wg.CallError, match="chooses its cameras"):
        turntable(program.ball, 3, camera=Camera((1, 0, 0)), r=1.0)


def test_rays_outside_of_the_box_meet_nothing(program):
    box = Box(np.full(3, -1.0), np.full(3, 1.0))
    field = Field(program.ball, {"r": 0.5})
    view = View(Camera((0.0, -9.0, 0.0), height=20.0), 50, 50)
    depth = first_hits(field, view, box)
    rows, columns = np.nonzero(np.isfinite(depth))
    assert len(rows) and np.abs(rows - 24.5).max() < 3 and np.abs(columns - 24.5).max() < 3


def test_parts_have_their_colours():
    program = wg.compile(
        """
shape sign(tall: real):
    part("post", color="#ff0000"):
        translate(0, 0, -1): cylinder(0.1, tall)
    part("plate", color="#0000ff"):
        translate(0, 0, 1): cuboid(0.1, 2, 1)
""",
        "sign.wg",
    )
    picture = render(program.sign, tall=2.0, size=60, azimuth=5.0, smooth=False)
    assert set(np.unique(picture.parts)) == {-1, 0, 1}
    rows = [np.nonzero(picture.parts == k)[0].mean() for k in (0, 1)]
    assert rows[1] < rows[0]
    for part, channel in ((0, 0), (1, 2)):
        colours = picture.pixels[picture.parts == part].astype(int)
        others = [c for c in range(3) if c != channel]
        assert (colours[:, channel] > colours[:, others].max(axis=1) + 50).all()


def test_the_page_about_rendering(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "rendering.md").read_text()
    programs = [wg.compile(b, "page.wg") for b in re.findall(r"```wg\n(.*?)```", page, re.S)]
    assert np.isfinite(programs[0].loss.grad(1.2, np.eye(3), np.ones((2, 3))))
    camera = Camera((3.0, 0.0, 0.0)).record()
    assert np.isfinite(programs[1].match.grad(0.8, camera, np.zeros((4, 4))))
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    pytest.importorskip("trimesh")
    exec(code, {})
    assert (tmp_path / "egg.stl").exists() and (tmp_path / "egg.png").exists()
