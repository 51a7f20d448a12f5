"""Files: meshes through trimesh, voxels, PNG and GIF."""

from __future__ import annotations

import builtins
import io
import zlib

import numpy as np
import pytest
from PIL import Image
from wengert.runtime.shapes.files import load_voxels, save_voxels
from wengert.runtime.shapes.grids import signed_distances
from wengert.runtime.shapes.mesh import Mesh, NoSurface, mesh
from wengert.runtime.shapes.pictures import encode_png, save_gif
from wengert.runtime.shapes.render import render, turntable

import wengert as wg

trimesh = pytest.importorskip("trimesh")
TEXT = """
fn box(p: real[3], h: real[3]) -> real: return max(abs(p) - h)
"""


@pytest.fixture(scope="module")
def program():
    return wg.compile(TEXT, "filed.wg")


@pytest.fixture(scope="module")
def two(program):
    """A box whose upper faces are another part."""
    found = mesh(program.box, h=[0.5, 1.0, 1.5], resolution=12)
    parts = (found.vertices[found.faces][:, :, 2].mean(axis=1) > 1.4).astype(np.int32)
    colours = np.array([[200, 10, 20], [30, 40, 250]], np.uint8)
    return Mesh(found.vertices, found.faces, parts, ("leg", "top"), colours)


@pytest.mark.parametrize("kind", ["stl", "ply", "obj", "glb"])
def test_mesh_files_read_back(two, tmp_path, kind):
    path = tmp_path / f"box.{kind}"
    two.save(path)
    read = trimesh.load(path, force="mesh")
    read.merge_vertices(merge_tex=True, merge_norm=True)
    assert read.is_watertight and len(read.faces) == len(two)
    assert read.volume == pytest.approx(two.volume(), rel=1e-5)
    up = 1 if kind == "glb" else 2  # glTF has y up
    assert read.bounds[1][up] == pytest.approx(1.5, abs=1e-3)


def test_parts_have_names_and_colours(two, tmp_path):
    two.save(tmp_path / "box.glb")
    scene = trimesh.load(tmp_path / "box.glb")
    assert set(scene.geometry) == {"leg", "top"}
    top = scene.geometry["top"].visual.vertex_colors
    assert (top[:, :3] == [30, 40, 250]).all()
    two.save(tmp_path / "box.ply")
    colours = trimesh.load(tmp_path / "box.ply").visual.face_colors
    assert {tuple(c) for c in colours[:, :3].tolist()} == {(200, 10, 20), (30, 40, 250)}


def test_parts_of_one_name_are_both_saved(two, tmp_path):
    same = Mesh(two.vertices, two.faces, two.parts, ("leg", "leg"), two.colours)
    same.save(tmp_path / "box.glb")
    read = trimesh.load(tmp_path / "box.glb")
    assert sum(len(g.faces) for g in read.geometry.values()) == len(two)


def test_what_cannot_be_saved(two, program, tmp_path, monkeypatch):
    with pytest.raises(wg.CallError, match=r"no kind of mesh file ends with '\.xyz'"):
        two.save(tmp_path / "box.xyz")
    with pytest.raises(NoSurface, match="an empty mesh is not saved"):
        mesh(program.box, h=[-1.0, 1.0, 1.0], bounds=(-1, 1), resolution=4).save(tmp_path / "a.stl")
    with pytest.raises(OSError):
        two.save(tmp_path / "missing" / "box.stl")
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name in ("trimesh", "PIL"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(wg.CallError, match=r"need trimesh\n.*pip install 'wengert\[mesh\]'"):
        two.save(tmp_path / "box.stl")
    with pytest.raises(wg.CallError, match=r"need Pillow\n.*pip install 'wengert\[pictures\]'"):
        save_gif(tmp_path / "a.gif", [])


def test_png_is_what_pillow_reads():
    rng = np.random.default_rng(0)
    for shape, mode in (((5, 7), "L"), ((3, 4, 3), "RGB"), ((6, 2, 4), "RGBA"), ((1, 1, 3), "RGB")):
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        read = Image.open(io.BytesIO(encode_png(pixels)))
        assert read.mode == mode
        np.testing.assert_array_equal(np.asarray(read), pixels)
    assert len(encode_png(np.full((400, 400, 3), 255, np.uint8))) < 2000
    assert zlib.crc32(b"IEND") == 0xAE426082
    for bad in (np.zeros((2, 2)), np.zeros((2, 2, 5), np.uint8), np.zeros((0, 3), np.uint8)):
        with pytest.raises(wg.CallError):
            encode_png(bad)


def test_pictures(program, tmp_path):
    picture = render(program.box, h=[0.5, 1.0, 0.3], size=(30, 20))
    picture.save(tmp_path / "box.png")
    read = Image.open(tmp_path / "box.png")
    assert read.size == (30, 20)
    np.testing.assert_array_equal(np.asarray(read), picture.pixels)
    assert picture._repr_png_() == (tmp_path / "box.png").read_bytes()
    with pytest.raises(wg.CallError, match="saved as PNG"):
        picture.save("box.jpg")


def test_turntable(program, tmp_path):
    frames = turntable(program.box, 4, h=[0.5, 1.0, 0.3], size=24)
    save_gif(tmp_path / "box.gif", frames, 0.1)
    read = Image.open(tmp_path / "box.gif")
    assert (read.n_frames, read.size, read.info["duration"]) == (4, (24, 24), 100)
    colours = np.asarray(read.convert("RGB")).astype(int)
    assert np.abs(colours - frames[0].pixels).mean() < 8
    with pytest.raises(wg.CallError, match="saved as GIF"):
        save_gif(tmp_path / "box.png", frames)


def test_voxels(tmp_path):
    voxels = np.random.default_rng(0).random((3, 4, 5)) < 0.5
    save_voxels(tmp_path / "a.npz", voxels, ((-1, 0, 0), 2))
    read, box = load_voxels(tmp_path / "a.npz")
    np.testing.assert_array_equal(read, voxels)
    assert (box.low.tolist(), box.high.tolist()) == ([-1, 0, 0], [2, 2, 2])
    for name, grid in (("a.npy", voxels), ("a.npz", voxels[0]), ("a.npz", "grid")):
        with pytest.raises(wg.CallError):
            save_voxels(tmp_path / name, grid)
    (tmp_path / "b.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "c.npz", voxels=voxels)
    for name in ("b.npz", "c.npz"):
        with pytest.raises(wg.CallError, match="holds no voxels"):
            load_voxels(tmp_path / name)


def test_distances_of_voxels():
    voxels = np.zeros((6, 5, 4), bool)
    voxels[1:4, 1:4, 1:3] = True
    found = signed_distances(voxels, 0.5)
    assert found.dtype == np.float32 and ((found < 0) == voxels).all()
    assert (found[0, 2, 1], found[5, 2, 1], found[2, 2, 1]) == (0.25, 0.75, -0.25)
    assert found[0, 0, 0] == pytest.approx(0.5 * (np.sqrt(3) - 0.5))
    assert np.isposinf(signed_distances(~(voxels | True))).all()
    assert np.isneginf(signed_distances(voxels | True)).all()
    with pytest.raises(wg.CallError, match="bools on a grid"):
        signed_distances(np.zeros((3, 3, 3)))
