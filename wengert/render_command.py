"""`wengert render`: pictures, animations, meshes and voxels of a shape."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .ir.errors import WengertError

MESHES = (".stl", ".ply", ".obj", ".glb")
KINDS = (".png", ".gif", *MESHES)


def options(sub: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    sub.add_argument("file")
    sub.add_argument("--shape", help="by default the one named as the file, or the last")
    sub.add_argument("-o", "--output", required=True, help=f"NAME{', NAME'.join(KINDS)}")
    sub.add_argument("--set", nargs="+", action="extend", default=[], metavar="name=value")
    sub.add_argument("--size", default="512", help="pixels: N or WIDTHxHEIGHT")
    sub.add_argument("--azimuth", type=float, default=-55.0, help="degrees about z to the eye")
    sub.add_argument("--elevation", type=float, default=25.0, help="degrees above the floor")
    sub.add_argument("--zoom", type=float, default=1.0)
    sub.add_argument("--orthographic", action="store_true", help="parallel rays")
    sub.add_argument("--bounds", nargs=2, type=float, metavar=("LOW", "HIGH"))
    sub.add_argument("--turntable", action="store_true", help="write NAME.gif beside the picture")
    sub.add_argument("--frames", type=int, default=24, help="pictures of a turn")
    sub.add_argument("--resolution", type=int, default=128, help="cells along the longest side")
    sub.add_argument("--real", default="f32", choices=("f32", "f64"))


def command(options: argparse.Namespace) -> None:
    """Run the command."""
    from .cli import named_values
    from .runtime.program import load

    target = Path(options.output)
    kind = target.suffix.lower()
    if kind not in KINDS:
        raise WengertError(
            f"no kind of file ends with '{target.suffix}'", expected=", ".join(KINDS)
        )
    program = load(options.file, real=options.real)
    function = _chosen(program, options.shape, Path(options.file).stem)
    values = named_values(options.set, function)
    bounds = tuple(options.bounds) if options.bounds else None
    if kind in MESHES:
        _mesh(function, target, options.resolution, bounds, values)
    else:
        _pictures(function, target, options, bounds, values)


def _chosen(program: Any, name: str | None, stem: str) -> Any:
    """The function to show."""
    shapes = [n for n in program.functions if getattr(program, n).decl.kind == "shape"]
    names = shapes or list(program.functions)
    if name is None and names:
        name = stem if stem in names else names[-1]
    if name is None or name not in program.functions:
        raise WengertError(
            f"the program has no shape '{name}'" if name else "the program has no shape",
            found=", ".join(names) or "no functions",
        )
    return getattr(program, name)


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if not (1 <= len(parts) <= 2 and all(p.isdecimal() for p in parts)):
        raise WengertError(f"'{text}' is no size", expected="pixels: N or WIDTHxHEIGHT")
    return int(parts[0]), int(parts[-1])


def _mesh(function: Any, target: Path, resolution: int, bounds: Any, values: Any) -> None:
    from .runtime.shapes.mesh import mesh

    found = mesh(function, resolution=resolution, bounds=bounds, **values)
    found.save(target)
    print(f"{target}: {len(found.vertices)} vertices, {len(found)} faces")


def _pictures(
    function: Any, target: Path, options: argparse.Namespace, bounds: Any, values: Any
) -> None:
    from .runtime.shapes.pictures import save_gif
    from .runtime.shapes.render import render, turntable

    view = {
        "size": _size(options.size),
        "azimuth": options.azimuth,
        "elevation": options.elevation,
        "zoom": options.zoom,
        "perspective": not options.orthographic,
        "bounds": bounds,
    }
    if target.suffix.lower() == ".png":
        picture = render(function, **view, **values)
        picture.save(target)
        note = "" if picture.mask.any() else ", in which no shape is seen"
        print(f"{target}: {view['size'][0]} x {view['size'][1]} pixels{note}")
    if options.turntable or target.suffix.lower() == ".gif":
        animated = target.with_suffix(".gif")
        save_gif(animated, turntable(function, options.frames, **view, **values))
        print(f"{animated}: {options.frames} pictures")
