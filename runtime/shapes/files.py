"""Files of meshes (through trimesh) and of voxels."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CallError
from ..values import Array, describe
from .bounds import Box, box_of

if TYPE_CHECKING:
    from .mesh import Mesh

WHOLE = (".stl", ".ply")  # formats of one mesh; the others hold one a part
BY_PART = (".obj", ".glb")
UPRIGHT = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])  # z up to y up


def save_mesh(mesh: Mesh, path: Any) -> None:
    """Write a mesh; see `Mesh.save`."""
    from .mesh import NoSurface

    target = Path(os.fspath(path))
    kind = target.suffix.lower()
    if kind not in WHOLE + BY_PART:
        raise CallError(
            f"no kind of mesh file ends with '{target.suffix}'",
            expected=", ".join(WHOLE + BY_PART),
            found=str(target),
        )
    if not len(mesh):
        raise NoSurface(f"an empty mesh is not saved to {target}", hint="the shape has no surface")
    trimesh = _trimesh()
    if kind in WHOLE:
        data = _made(trimesh, mesh.vertices, mesh.faces, mesh.colours[mesh.parts])
        body = data.export(file_type=kind[1:])
    else:
        scene = trimesh.Scene()
        for name, vertices, faces, colour in parts_of(mesh):
            geometry = _made(trimesh, vertices, faces, np.tile(colour, (len(faces), 1)))
            geometry.metadata["name"] = name
            turn = UPRIGHT if kind == ".glb" else np.eye(4)
            scene.add_geometry(geometry, geom_name=name, node_name=name, transform=turn)
        body = scene.export(file_type=kind[1:])
    target.write_bytes(body.encode() if isinstance(body, str) else body)


def _trimesh() -> Any:
    try:
        import trimesh
    except ImportError:
        raise CallError("mesh files need trimesh", hint="pip install 'wengert[mesh]'") from None
    return trimesh


def _made(trimesh: Any, vertices: Array, faces: Array, colours: Array) -> Any:
    made = trimesh.Trimesh(vertices, faces, process=False, validate=False)
    made.visual.face_colors = np.hstack([colours, np.full((len(colours), 1), 255, np.uint8)])
    return made


def parts_of(mesh: Mesh) -> Iterator[tuple[str, Array, Array, Array]]:
    """The parts of a mesh that have faces: name, vertices, faces, colour u8[3]."""
    for number, name in enumerate(mesh.names):
        faces = mesh.faces[mesh.parts == number]
        if len(faces):
            used, own = np.unique(faces, return_inverse=True)
            yield (
                name or "shape",
                mesh.vertices[used],
                own.reshape(-1, 3).astype(np.int32),
                mesh.colours[number],
            )


def save_voxels(path: Any, voxels: Array, bounds: Any = (-1.0, 1.0)) -> None:
    """Write an occupancy grid `[x, y, z]` of a box to an .npz file: `voxels`, `low`, `high`.

    Raises CallError for arrays that are no grid and names that do not end with .npz.
    """
    target = Path(os.fspath(path))
    if target.suffix.lower() != ".npz":
        raise CallError("voxels are saved as NPZ", expected="NAME.npz", found=str(target))
    grid = np.asarray(voxels)
    if grid.ndim != 3 or grid.dtype.kind not in "biuf":
        raise CallError("voxels are a grid of three axes", found=describe(voxels))
    box = box_of(bounds)
    with target.open("wb") as file:
        np.savez_compressed(file, voxels=grid, low=box.low, high=box.high)


def load_voxels(path: Any) -> tuple[Array, Box]:
    """Voxels and their box from a file of `save_voxels`. Raises CallError, OSError."""
    try:
        with np.load(path, allow_pickle=False) as data:
            return data["voxels"], box_of((data["low"], data["high"]))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CallError(f"{path} holds no voxels", found=str(error)) from None
