"""Functions of a program as Python callables: values, derivatives, batches, dumps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..frontend import syntax
from ..ir.core import Module
from ..ir.prob import Choice, choices_of
from ..ir.span import Span
from ..ir.struct import RecordStruct, Struct, TupleStruct, leaves
from ..ir.types import TensorType
from .binding import Bound, Static, bind, bind_again
from .errors import ArgumentError, BackendError, CallError
from .keys import split_key
from .requests import KINDS, Request, choose_wrt, float_leaves
from .specialization import Specialization
from .values import Converter, Place, describe, to_python, unflatten

if TYPE_CHECKING:
    from .program import Program

Wrt = str | Sequence[str] | None


class Simulated(NamedTuple):
    """A run of a model or guide.

    choices: by address, nested dicts; score: their log density; value: what the program returned.
    """

    choices: Any
    score: Any
    value: Any


class Interval(NamedTuple):
    """Bounds of a result: each has its structure. NaN: nothing is known."""

    lo: Any
    hi: Any


class CompiledFunction:
    """A function of a program, compiled for each signature it is called with.

    Call it with numbers, lists, NumPy or JAX arrays, tuples and dicts; it returns NumPy
    scalars and arrays (JAX arrays on the XLA backend), nested as the program returns them.
    Inside `jax.jit`, `jax.vmap` and `jax.grad` it acts as a JAX function, with wengert's
    derivatives. Every method may raise WengertError subclasses: CallError and ArgumentError
    for the call, the front end's errors for the program.
    """

    def __init__(self, program: Program, decl: syntax.FunctionDecl) -> None:
        self.program = program
        self.decl = decl
        self.__name__ = decl.name
        self.__doc__ = decl.doc or f"`{decl.name}` of {decl.span.file}."
        self._fast: dict[tuple[type, ...], Callable[..., Any]] = {}
        self._specializations: dict[Any, Specialization] = {}
        self._last: Specialization | None = None
        self._names = [p.name for p in decl.parameters]

    def __repr__(self) -> str:
        params = ", ".join(p.name for p in self.decl.parameters)
        return f"<wengert function {self.decl.name}({params}) at {self.decl.span}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's value; the keyword `samples=n` averages over n split keys."""
        if not kwargs:
            fast = self._fast.get(tuple(map(type, args)))
            if fast is not None:
                return fast(*args)
        return self._call(args, kwargs)

    def _call(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if "jax" in _modules() and _is_traced(args, kwargs):
            return self._traced(args, kwargs)
        samples = self._option(kwargs, "samples", 0)
        special, bound = self._bind(args, kwargs)
        request = Request(samples=check_samples(samples))
        out = special.run(request, bound.arrays)
        if not kwargs and not samples:
            self._make_fast(special, args)
        return unflatten(special.lowered.result, iter(out), to_python)

    def _make_fast(self, special: Specialization, args: Sequence[Any]) -> None:
        """Remember a direct entry for calls whose arguments are all plain Python floats."""
        if args and all(type(a) is float for a in args):
            entry = special.scalar_entry(len(args))
            if entry is not None:
                self._fast[tuple(map(type, args))] = entry

    def value_and_grad(self, *args: Any, wrt: Wrt = None, samples: int = 0, **kwargs: Any) -> Any:
        """(value, gradient) of a function with one float scalar result.

        wrt: the parameter (or parameters, giving a tuple) to differentiate by; the first that
            holds floats by default. The gradient has the parameter's structure and shapes,
            None in place of tensors that are not floats.
        samples: average value and gradient over that many splits of the function's key.
        """
        special, bound = self._bind(args, kwargs)
        names, single = self._choose_wrt(special, wrt)
        request = Request("value_and_grad", names, check_samples(samples))
        value, *grads = special.run(request, bound.arrays)
        return to_python(value), self._structured(special, names, single, grads)

    def grad(self, *args: Any, wrt: Wrt = None, samples: int = 0, **kwargs: Any) -> Any:
        """The gradient alone; see `value_and_grad`."""
        special, bound = self._bind(args, kwargs)
        names, single = self._choose_wrt(special, wrt)
        request = Request("grad", names, check_samples(samples))
        return self._structured(special, names, single, special.run(request, bound.arrays))

    def jvp(self, primals: Sequence[Any], tangents: Any, wrt: Wrt = None) -> tuple[Any, Any]:
        """(value, directional derivative) at `primals` (all arguments, in order).

        tangents: one value for a `wrt` of one name, else a tuple, each of the structure and
            shapes of its parameter. The derivative has the structure of the result, None in
            place of what is not a float.
        """
        _need_items("primals", primals)
        special, bound = self._bind(primals, {})
        names, single = self._choose_wrt(special, wrt)
        given = (tangents,) if single else _need_items("tangents", tangents)
        if len(given) != len(names):
            raise CallError(
                f"jvp by {', '.join(names)} takes {len(names)} tangents, not {len(given)}"
            )
        flat = [a for n, t in zip(names, given) for a in self._tangent(special, n, t, "tangent")]
        out = special.run(Request("jvp", names), [*bound.arrays, *flat])
        result = special.lowered.result
        count = len(leaves(result))
        value = unflatten(result, iter(out[:count]), to_python)
        return value, floats_only(result, out[count:])

    def vjp(self, *args: Any, wrt: Wrt = None, **kwargs: Any) -> tuple[Any, Callable[[Any], Any]]:
        """(value, pullback): the pullback takes a cotangent like the value to those of `wrt`."""
        special, bound = self._bind(args, kwargs)
        names, single = self._choose_wrt(special, wrt)
        value = special.run(Request(), bound.arrays)

        def pullback(cotangent: Any) -> Any:
            flat = self._cotangent(special, cotangent)
            out = special.run(Request("vjp", names), [*bound.arrays, *flat])
            return self._structured(special, names, single, out)

        return unflatten(special.lowered.result, iter(value), to_python), pullback

    def hessian(self, *args: Any, wrt: str | None = None, **kwargs: Any) -> Any:
        """Second derivatives of a scalar function by one array parameter: `[*shape, *shape]`.

        For a parameter of several tensors: the square matrix over all their elements in order.
        """
        special, bound = self._bind(args, kwargs)
        names, single = self._choose_wrt(special, wrt)
        if not single:
            raise CallError("hessian takes one parameter as wrt", found=repr(wrt))
        rows = special.run(Request("hessian", names), bound.arrays)
        struct = dict(special.params)[names[0]]
        rows = [np.asarray(r) if not isinstance(r, np.ndarray) else r for r in rows]
        if isinstance(struct, TensorType):
            return to_python(rows[0].reshape(struct.shape * 2))
        return np.concatenate([r.reshape(r.shape[0], -1) for r in rows], axis=1)

    def interval(
        self, lo: Any, hi: Any, *, wrt: Wrt = None, batched: bool = False, **kwargs: Any
    ) -> Interval:
        """Bounds of the function over a box: (lower, upper), each nested as the result.

        lo, hi: the corners of the box, values of the parameter `wrt` (by default the first one
            that is not given by name), or tuples of values for a tuple of names. The other
            arguments are given by name.
        batched: many boxes at once, along a new first axis of the tensors of lo and hi.

        Whatever the point in the box, the exact value there and what any backend computes are
        within the bounds. A bound of NaN: nothing is known, the value may be NaN too. Bools are
        bounded by "certainly" and "possibly". Raises NoInterval where the program has no bounds
        over boxes (random keys or unbounded loops that depend on the box).
        """
        names, single = self._boxed(wrt, kwargs)
        bounds = []
        for corner in (lo, hi):
            values = (corner,) if single else _need_items("bounds", corner)
            if len(values) != len(names):
                raise CallError(
                    f"a box of {', '.join(names)} has {len(names)} bounds a corner",
                    found=str(len(values)),
                )
            bounds.append(self._bound((), {**kwargs, **dict(zip(names, values))}))
        low, high = bounds
        if low.signature != high.signature:
            raise ArgumentError(f"the corners of a box of {', '.join(names)} differ in shape")
        size = self._batch_size(low, names) if batched else 0
        special = self._specialize(unbatch(low, names) if batched else low)
        names, _ = choose_wrt(self.__name__, special.params, names)
        request = Request("interval", names, axes=names if batched else None, size=size)
        out = special.run(request, interleaved(special.params, names, low, high))
        result = special.lowered.result
        return Interval(*(unflatten(result, iter(out[end::2]), to_python) for end in (0, 1)))

    def _boxed(self, wrt: Wrt, kwargs: dict[str, Any]) -> tuple[tuple[str, ...], bool]:
        """The parameters that are boxes, and whether one was asked for by itself."""
        if wrt is not None:
            names = (wrt,) if isinstance(wrt, str) else tuple(wrt)
            return names, isinstance(wrt, str)
        free = [p.name for p in self.decl.parameters if p.name not in kwargs]
        if not free:
            raise CallError(f"{self.__name__}() has no parameter left to be a box")
        return (free[0],), True

    def simulate(self, *args: Any, key: Any, samples: int = 0, **kwargs: Any) -> Simulated:
        """Run a model or guide: its choices, their log density, and what it returns.

        samples: that many runs, from splits of the key; everything gets a new first axis.
        """
        asked = self._asked("simulate")
        if not samples:
            out = asked(*args, key=key, **kwargs)
        else:
            keys = split_key(key, check_samples(samples))
            shared: dict[str, int | None] = {
                p.name: None for p in self.decl.parameters if p.name != "key"
            }
            out = asked.batched(*args, key=keys, axes=shared, **kwargs)
        return Simulated(out["choices"], out["score"], out["value"])

    def logpdf(self, choices: Any, *args: Any, **kwargs: Any) -> Any:
        """The log density of all choices (nested dicts by address) of a model or guide."""
        return self._asked("logpdf")(choices, *args, **kwargs)

    def choices(self, *args: Any, **kwargs: Any) -> list[Choice]:
        """The choices that a model or guide can make: address, type, support; in order."""
        self._need_choices("choices")
        module = self.module(*args, **kwargs)
        return choices_of(module, module.main)

    def module(self, *args: Any, **kwargs: Any) -> Module:
        """The IR for these arguments as the front end left it, before any pass."""
        return self._program_at(args, kwargs).lowered.module

    def result(self, *args: Any, **kwargs: Any) -> Struct:
        """The structure of what the function returns for these arguments."""
        return self._program_at(args, kwargs).lowered.result

    def _program_at(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Specialization:
        """The specialisation for these arguments, whatever key they may need."""
        fresh = [p.name for p in self.decl.parameters if isinstance(p.default, syntax.FreshKey)]
        keys = {name: np.zeros(2, np.uint32) for name in fresh}
        return self._bind(args, {**keys, **kwargs})[0]

    def _choose_wrt(self, special: Specialization, wrt: Wrt) -> tuple[tuple[str, ...], bool]:
        if self.decl.kind in ("model", "guide"):
            raise CallError(
                f"the {self.decl.kind} {self.__name__}() has no derivative: it is no expectation",
                self.decl.span,
                hint="declare an objective that returns what its expectation is wanted of",
            )
        return choose_wrt(self.__name__, special.params, wrt)

    def _asked(self, what: str) -> CompiledFunction:
        self._need_choices(what)
        function: CompiledFunction = getattr(self.program, f"{self.__name__}.{what}")
        return function

    def _need_choices(self, what: str) -> None:
        if self.decl.kind not in ("model", "guide"):
            raise CallError(
                f"{self.__name__}() makes no choices, so it has no .{what}",
                self.decl.span,
                expected="a model or guide",
                found=f"declared as {self.decl.kind}",
            )

    def batched(self, *args: Any, axes: dict[str, int | None] | None = None, **kwargs: Any) -> Any:
        """The function mapped along the first axis of its array arguments, as one program.

        axes: parameters not to map, as `{"theta": None}`; the others are mapped (axis 0), so
            each of their tensors must have one axis more than the function takes.
        """
        if axes is not None and not isinstance(axes, Mapping):
            raise CallError("axes is a dict by argument", expected='{"x": None}', found=repr(axes))
        bound = self._bound(args, kwargs)
        shared = self._shared_axes(axes or {}, bound)
        mapped = [n for n, s in bound.signature if n not in shared and not isinstance(s, Static)]
        size = self._batch_size(bound, mapped)
        special = self._specialize(unbatch(bound, mapped))
        out = special.run(Request(axes=tuple(mapped), size=size), bound.arrays)
        return unflatten(special.lowered.result, iter(out), to_python)

    def ir(self, *args: Any, after: str = "simplify", spans: bool = False, **kwargs: Any) -> str:
        """The IR text after a stage, for the signature of `args` (or of the last call).

        after: a stage's name, or "all"; "intervals" shows the function on boxes. Options
            `derivative="grad"`, `wrt=`, `samples=` show the program of a derivative instead of
            the plain value.
        """
        if after == "intervals" and kwargs.get("derivative", "call") == "call":
            kwargs = kwargs | {"derivative": "interval"}
        special, request = self._request(args, kwargs)
        return special.dump(request, after, spans)

    def llvm(self, *args: Any, **kwargs: Any) -> str:
        """The optimised LLVM IR; options as for `ir`."""
        return self._text("llvm", "llvm", args, kwargs)

    def asm(self, *args: Any, **kwargs: Any) -> str:
        """The machine code as assembly; options as for `ir`."""
        return self._text("llvm", "asm", args, kwargs)

    def stablehlo(self, *args: Any, **kwargs: Any) -> str:
        """The StableHLO text of the XLA backend; options as for `ir`."""
        return self._text("xla", "stablehlo", args, kwargs)

    def save(self, path: str, *args: Any, **kwargs: Any) -> None:
        """Write the code for the signature of `args` to a file; see `wg.load_compiled`.

        Options `derivative=`, `wrt=`, `samples=` as for `ir`.
        """
        from .artifact import save

        special, request = self._request(args, kwargs)
        save(path, special, request)

    def _text(self, backend: str, kind: str, args: Sequence[Any], kwargs: dict[str, Any]) -> str:
        special, request = self._request(args, kwargs)
        text = getattr(special.executable(request, backend), kind)()
        assert isinstance(text, str)
        return text

    def _request(
        self, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> tuple[Specialization, Request]:
        derivative = self._option(kwargs, "derivative", "call")
        wrt = self._option(kwargs, "wrt", None)
        samples = check_samples(self._option(kwargs, "samples", 0))
        if derivative not in KINDS:
            raise CallError(f"no derivative is called {derivative!r}")
        if args or kwargs or self._last is None:
            special, _ = self._bind(args, kwargs)
        else:
            special = self._last
        if derivative == "call":
            return special, Request(samples=samples)
        names, _ = self._choose_wrt(special, wrt)
        return special, Request(derivative, names, samples)

    def _option(self, kwargs: dict[str, Any], name: str, default: Any) -> Any:
        """Take option `name` out of `kwargs`, unless the program has a parameter of that name."""
        if any(p.name == name for p in self.decl.parameters):
            return default
        return kwargs.pop(name, default)

    def _bound(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Bound:
        return bind(self.decl, self.program.converter(self.decl), args, kwargs, CompiledFunction)

    def _bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Specialization, Bound]:
        last = self._last
        if last is not None:
            device = self.program.plain_converter().device
            again = bind_again(last.signature, self._names, args, kwargs, device)
            if again is not None:
                return last, again
        bound = self._bound(args, kwargs)
        return self._specialize(bound), bound

    def _specialize(self, bound: Bound) -> Specialization:
        special = self._specializations.get(bound.signature)
        if special is None:
            special = Specialization(self.program, self.decl, bound.signature)
            self._specializations[bound.signature] = special
        self._last = special
        return special

    def _structured(
        self, special: Specialization, names: Sequence[str], single: bool, arrays: Sequence[Any]
    ) -> Any:
        structs = dict(special.params)
        flat = iter(arrays)
        parts = tuple(_take_floats(structs[n], flat) for n in names)
        return parts[0] if single else parts

    def _tangent(self, special: Specialization, name: str, value: Any, what: str) -> list[Any]:
        struct = dict(special.params)[name]
        return match_floats(self.program.plain_converter(), struct, value, f"{what} of {name}")

    def _cotangent(self, special: Specialization, value: Any) -> list[Any]:
        struct = special.lowered.result
        return match_floats(self.program.plain_converter(), struct, value, "cotangent")

    def _shared_axes(self, axes: dict[str, int | None], bound: Bound) -> list[str]:
        names = [n for n, _ in bound.signature]
        for name, axis in axes.items():
            if name not in names:
                raise CallError(f"{self.__name__}() has no argument '{name}' to batch")
            if axis not in (0, None):
                raise CallError("batched maps along axis 0 or not at all", found=f"{name}: {axis}")
        return [n for n, axis in axes.items() if axis is None]

    def _batch_size(self, bound: Bound, mapped: Sequence[str]) -> int:
        sizes: dict[int, str] = {}
        for name, item in bound.signature:
            if name not in mapped or isinstance(item, Static):
                continue
            for path, type in leaves(item, name):
                if not type.shape:
                    raise CallError(
                        f"'{path}' has no axis to map along",
                        self.decl.span,
                        hint=f'share it: axes={{"{name}": None}}',
                    )
                sizes.setdefault(type.shape[0], path)
        if len(sizes) != 1:
            found = ", ".join(f"{p}: {n}" for n, p in sizes.items()) or "no mapped argument"
            raise CallError("batched needs one length of the first axis", found=found)
        return next(iter(sizes))

    def _traced(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        from .jax_call import call_in_jax

        return call_in_jax(self, args, kwargs)


def _modules() -> dict[str, Any]:
    import sys

    return sys.modules


def _is_traced(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether JAX traces the call."""
    try:
        return _has_tracer((args, kwargs))
    except RecursionError:
        return False  # a value that contains itself, which `bind` tells


def _need_items(what: str, value: Any) -> Sequence[Any]:
    """`value` where it is a tuple or a list; CallError otherwise."""
    if not isinstance(value, tuple | list):
        raise CallError(f"jvp takes {what} as a tuple", found=describe(value))
    return value


def _has_tracer(value: Any) -> bool:
    import jax

    if isinstance(value, dict):
        return any(_has_tracer(v) for v in value.values())
    if isinstance(value, tuple | list):
        return any(_has_tracer(v) for v in value)
    return isinstance(value, jax.core.Tracer)


def interleaved(
    params: Sequence[tuple[str, Struct]], names: Sequence[str], low: Bound, high: Bound
) -> list[Any]:
    """The arrays of a call on boxes: two for each float tensor of `names`, else one.

    Raises ArgumentError where a lower bound is above the upper one.
    """
    flat = [(name, path, type) for name, s in params for path, type in leaves(s, name)]
    out: list[Any] = []
    for (name, path, type), x, y in zip(flat, low.arrays, high.arrays, strict=True):
        out.append(x)
        if name not in names:
            continue
        if not type.dtype.is_float:
            if not np.array_equal(np.asarray(x), np.asarray(y)):
                raise ArgumentError(f"'{path}' is no float, so it is the same at both corners")
            continue
        out.append(y)
        wrong = np.asarray(x) > np.asarray(y)
        if wrong.any():
            at = np.unravel_index(int(wrong.argmax()), wrong.shape)
            raise ArgumentError(
                f"the box of '{path}' is empty",
                expected="lower bounds that are not above the upper ones",
                found=f"{np.asarray(x)[at]} > {np.asarray(y)[at]}",
            )
    return out


def check_samples(samples: Any) -> int:
    """`samples` as a count, or CallError."""
    if isinstance(samples, bool) or not isinstance(samples, int | np.integer) or samples < 0:
        raise CallError(
            "samples is a count", expected="a whole number, 1 or more", found=repr(samples)
        )
    return int(samples)


def unbatch(bound: Bound, mapped: Sequence[str]) -> Bound:
    """The signature of one element of a batched call."""
    from .requests import unbatched

    items = tuple(
        (n, unbatched(s) if n in mapped and not isinstance(s, Static) else s)
        for n, s in bound.signature
    )
    return replace(bound, signature=items)


def _take_floats(struct: Struct, arrays: Any) -> Any:
    """`struct` with the next arrays at its float tensors and None at the others."""
    match struct:
        case TensorType(dtype, _):
            return to_python(next(arrays)) if dtype.is_float else None
        case TupleStruct(items):
            return tuple(_take_floats(s, arrays) for s in items)
        case RecordStruct(_, fields):
            return {k: _take_floats(s, arrays) for k, s in fields}


def floats_only(struct: Struct, arrays: Sequence[Any]) -> Any:
    """Derivatives of a result, None in place of what is not a float."""
    return _take_floats(struct, iter(arrays))


def match_floats(converter: Converter, struct: Struct, value: Any, what: str) -> list[Any]:
    """The float arrays of a tangent or cotangent, checked against `struct`."""
    match struct:
        case TupleStruct(items):
            if not isinstance(value, tuple | list) or len(value) != len(items):
                raise ArgumentError(
                    f"{what} does not fit", expected=f"{len(items)} items", found=describe(value)
                )
            pairs = [(s, v, f"{what}[{i}]") for i, (s, v) in enumerate(zip(items, value))]
        case RecordStruct(_, fields):
            if not isinstance(value, dict) or set(value) != {k for k, _ in fields}:
                raise ArgumentError(
                    f"{what} does not fit",
                    expected="a dict with " + ", ".join(k for k, _ in fields),
                    found=describe(value),
                )
            pairs = [(s, value[k], f"{what}.{k}") for k, s in fields]
        case TensorType(dtype, _):
            if not dtype.is_float:
                return []
            out: list[Any] = []
            annotation = syntax.NamedType(_NOWHERE, dtype.name)
            found = converter.flatten(value, annotation, Place(what, None), out)
            if found != struct:
                raise ArgumentError(
                    f"{what} has the wrong shape", expected=str(struct), found=str(found)
                )
            return out
    return [a for s, v, w in pairs for a in match_floats(converter, s, v, w)]


_NOWHERE = Span("", 0, 0, 0, 0)

__all__ = ["BackendError", "CompiledFunction", "float_leaves"]
