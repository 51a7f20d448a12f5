"""The command line: check, run, fit, ir, emit and render.

Arguments of the program's functions are written `name=value`, where the value is JSON
(`x=[1, 2]`, `p={"w": 0.5}`), a file (`x=@data.npy`, `x=@data.npz:images`, `x=@table.csv`)
or, for a parameter of type key, a seed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import render_command
from .ir.errors import WengertError

USAGE_ERROR = 2


def run(argv: Sequence[str]) -> int:
    """Run one command; 0 if it worked, 1 for an error of the program or its data, 2 for usage."""
    options = _parser().parse_args(argv)
    try:
        status = options.command(options)
    except WengertError as error:
        print(error.render(), file=sys.stderr)
        return 1
    except (OSError, MemoryError) as error:
        print(f"wengert: {error or 'out of memory'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("wengert: interrupted", file=sys.stderr)
        return 130
    return int(status or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wengert", description="Compile, run, fit and inspect differentiable programs."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="read programs and report every mistake")
    check.add_argument("files", nargs="+")
    check.set_defaults(command=_check)
    for name, text, command in (
        ("run", "call a function and print its result", _run),
        ("fit", "minimise a function over some of its parameters", _fit),
        ("ir", "print the IR of a function", _ir),
        ("emit", "print what a backend makes of a function", _emit),
    ):
        sub = commands.add_parser(name, help=text)
        _common(sub)
        sub.set_defaults(command=command)
        _SPECIFIC[name](sub)
    sub = commands.add_parser("render", help="write a picture or a mesh of a shape")
    render_command.options(sub)
    sub.set_defaults(command=render_command.command)
    return parser


def _common(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("file")
    sub.add_argument("function")
    sub.add_argument("arguments", nargs="*", metavar="name=value")
    sub.add_argument("--backend", default="llvm", choices=("llvm", "xla", "interp"))
    sub.add_argument("--real", default="f32", choices=("f32", "f64"))
    sub.add_argument("--samples", type=int, default=0, help="average over that many keys")
    sub.add_argument("--wrt", help="comma-separated parameters to differentiate by")


def _run_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--grad", action="store_true", help="print the gradient too")
    sub.add_argument("--dump-after", metavar="PASS", help="print the IR after a pass, or 'all'")


def _fit_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--steps", type=int, default=1000)
    sub.add_argument("--rate", type=float, default=1e-2, help="learning rate")
    sub.add_argument("--optimizer", default="adam", choices=("sgd", "momentum", "adam", "adamw"))
    sub.add_argument("--maximize", action="store_true")
    sub.add_argument("--batch-size", type=int, default=0)
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("-o", "--output", help="write parameters and history to this .npz")


def _ir_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        *("--after", "--dump-after"),
        dest="dump_after",
        default="simplify",
        metavar="PASS",
        help="a pass, or 'all'; intervals: the function of boxes",
    )
    sub.add_argument("--derivative", default="call", help="grad, value_and_grad, jvp, vjp, hessian")
    sub.add_argument("--dot", action="store_true", help="the graph in DOT instead of text")
    sub.add_argument("--spans", action="store_true", help="show where each op comes from")


def _emit_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--kind", default="llvm", choices=("llvm", "asm", "stablehlo"))
    sub.add_argument("--derivative", default="call")


_SPECIFIC = {"run": _run_options, "fit": _fit_options, "ir": _ir_options, "emit": _emit_options}


def _check(options: argparse.Namespace) -> int:
    from .runtime.program import load

    status = 0
    for file in options.files:
        try:
            functions = load(file).functions
            print(f"{file}: ok ({', '.join(functions) or 'no functions'})")
        except WengertError as error:
            print(error.render(), file=sys.stderr)
            status = 1
    return status


def _function(options: argparse.Namespace) -> Any:
    from .runtime.program import load

    program = load(options.file, backend=options.backend, real=options.real)
    try:
        return getattr(program, options.function)
    except AttributeError as error:
        raise WengertError(str(error)) from None


def _arguments(options: argparse.Namespace, function: Any) -> dict[str, Any]:
    return named_values(options.arguments, function)


def named_values(texts: Sequence[str], function: Any) -> dict[str, Any]:
    """The values of `name=value` texts, by name."""
    from .frontend.syntax import NamedType
    from .runtime.keys import key

    annotations = {p.name: p.annotation for p in function.decl.parameters}
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise WengertError(f"argument {text!r} is not of the form name=value")
        if name in values:
            raise WengertError(f"argument {name!r} is given twice")
        values[name] = read_value(value)
        note = annotations.get(name)
        if isinstance(note, NamedType) and note.name == "key" and type(values[name]) is int:
            values[name] = key(values[name])
    return values


def read_value(text: str) -> Any:
    """A command-line value: JSON, or `@file` (.npy, .npz:name, .csv with an optional header)."""
    import numpy as np

    if not text.startswith("@"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            shown = text if len(text) <= 40 else f"{text[:37]}..."
            raise WengertError(f"{shown!r} is neither JSON nor @file", found=str(error)) from None
    name, _, member = text[1:].partition(":")
    path = Path(name)
    if path.suffix == ".csv":
        return _read_csv(path)
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        if member in loaded:
            return loaded[member]
    except (ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise WengertError(f"{path} is not a .npy, .npz or .csv file", found=str(error)) from None
    raise WengertError(
        f"{path} needs the name of an array", expected=f"@{path}:NAME", found=", ".join(loaded)
    )


def _read_csv(path: Path) -> Any:
    import numpy as np

    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise WengertError(f"{path} is not a table of numbers", found=str(error)) from None
    rows = []
    for line, cells in lines:
        if len(cells) != len(lines[0][1]):
            raise WengertError(f"{path}:{line}: {len(cells)} cells, not {len(lines[0][1])}")
        try:
            rows.append([float(cell) for cell in cells])
        except ValueError as error:
            if line != lines[0][0]:  # the first line may be a header
                raise WengertError(f"{path}:{line}: {error}") from None
    return np.array(rows)


def _run(options: argparse.Namespace) -> None:
    function = _function(options)
    args = _arguments(options, function)
    if options.dump_after:
        print(function.ir(after=options.dump_after, **args))
    extra = {"samples": options.samples} if options.samples else {}
    if options.grad:
        value, grad = function.value_and_grad(wrt=_wrt(options), **extra, **args)
        _show("value", value)
        _show("grad", grad)
    else:
        _show("", function(**extra, **args))


def _wrt(options: argparse.Namespace) -> Any:
    if not options.wrt:
        return None
    names = options.wrt.split(",")
    return names[0] if len(names) == 1 else names


def _show(label: str, value: Any) -> None:
    """Print a result: one line a tensor, with its path."""
    if isinstance(value, dict):
        for name, item in value.items():
            _show(f"{label}.{name}" if label else name, item)
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            _show(f"{label}[{i}]", item)
    else:
        print(f"{label} = {value}" if label else value)


def _fit(options: argparse.Namespace) -> None:
    from .runtime.fit import NonFiniteLoss

    _check_target(options.output)
    try:
        result = _fitted(options)
    except NonFiniteLoss as error:
        if options.output:
            error.result.save(options.output)
            print(f"the last good parameters are in {options.output}", file=sys.stderr)
        raise
    print(f"{result.steps} steps in {result.seconds:.2f} s, loss {result.loss:.6g}")
    _show("", result.params)
    if options.output:
        result.save(options.output)


def _check_target(path: str | None) -> None:
    """Tell that a file cannot be written before the work, not after it."""
    if path is None:
        return
    target = Path(path).absolute()
    if target.is_dir() or not os.access(target.parent, os.W_OK):
        raise WengertError(f"cannot write {path}")


def _fitted(options: argparse.Namespace) -> Any:
    from .runtime import optimizers
    from .runtime.keys import key
    from .runtime.training import fit

    function = _function(options)
    args = _arguments(options, function)
    wrt = _wrt(options) or function.decl.parameters[0].name
    names = [wrt] if isinstance(wrt, str) else wrt
    missing = [n for n in names if n not in args]
    if missing:
        raise WengertError(f"no start value for {', '.join(missing)}", expected="name=value")
    return fit(
        function,
        {n: args.pop(n) for n in names},
        steps=options.steps,
        optimizer=getattr(optimizers, options.optimizer)(options.rate),
        maximize=options.maximize,
        samples=options.samples,
        batch_size=options.batch_size or None,
        key=key(options.seed),
        **args,
    )


def _ir(options: argparse.Namespace) -> None:
    function = _function(options)
    args = _arguments(options, function)
    text = function.ir(
        after=options.dump_after,
        spans=options.spans,
        derivative=options.derivative,
        **({"wrt": _wrt(options)} if options.wrt else {}),
        **args,
    )
    if options.dot:
        from .ir.analysis import to_dot
        from .ir.parser import parse_module

        text = to_dot(parse_module(text))
    print(text)


def _emit(options: argparse.Namespace) -> None:
    function = _function(options)
    args = _arguments(options, function)
    extra = {"wrt": _wrt(options)} if options.wrt else {}
    print(getattr(function, options.kind)(derivative=options.derivative, **extra, **args))
