"""`fit`: the whole training loop of a function compiled into one function and driven."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ..frontend import syntax
from ..frontend.stack import deep_stack
from ..ir.core import Module
from ..ir.struct import RecordStruct, Struct, TupleStruct, leaves
from ..ir.types import KEY, TensorType
from ..passes.pipeline import FRONT, run_pipeline
from .binding import Bound, Static
from .cache import cached_fit
from .compiler import Dumps, Executable, compile_module
from .errors import CallError
from .fit import Driver, FitResult, Snapshot
from .fit_loop import Plan, build_loop
from .function import CompiledFunction, check_samples
from .optimizers import Optimizer, adam
from .requests import Request, choose_wrt, wrt_indices
from .schedules import number
from .specialization import Specialization
from .values import Array, Place, describe, key_array, to_python, unflatten

CAPACITY = 2048  # steps that one call of the compiled loop can run at most
_LOOPS: WeakKeyDictionary[Specialization, dict[Any, Executable]] = WeakKeyDictionary()


def fit(
    function: CompiledFunction,
    params: Mapping[str, Any],
    *,
    steps: int = 1000,
    optimizer: Optimizer | None = None,
    maximize: bool = False,
    samples: int = 0,
    batch_size: int | None = None,
    rows: str | Sequence[str] | None = None,
    averages: Mapping[str, float] | None = None,
    key: Any = None,
    resume: FitResult | None = None,
    on_nonfinite: str = "raise",
    tolerance: float | None = None,
    callback: Callable[[FitResult], Any] | None = None,
    progress: bool = True,
    data: Mapping[str, Any] | None = None,
    **more_data: Any,
) -> FitResult:
    """Minimise a function with one float scalar result over some of its parameters.

    params: start values by parameter name; their float tensors are optimised.
    data, more_data: the function's other arguments by name; `data` is for names that `fit`
        itself uses. Parameters of type key that are not given get a fresh key every step.
    optimizer: `adam(1e-3)` by default.
    samples: average value and gradient over that many splits of the step's key.
    batch_size: take a minibatch of that many rows every step, from a fresh shuffle every
        epoch; the rows that do not fill a last minibatch wait for another epoch. `rows` names
        the arguments that are split along their first axis: all data arrays by default.
    averages: data arguments (float scalars) that follow the objective: after every step each
        becomes decay * itself + (1 - decay) * the objective's value, as `{"b": 0.9}`. Baselines
        of `reinforce(baseline=b)` are made of these.
    key: the root of all randomness, `wg.key(0)` by default.
    resume: a result to go on from, to `steps` steps in all, exactly as if never stopped;
        params then only says which parameters are meant. Pass the same data and options.
    on_nonfinite: for a loss that is NaN or infinite: "raise" NonFiniteLoss, "stop" with the
        last good parameters, or "ignore".
    tolerance: stop where the mean loss of 100 steps differs by no more than this (relative to
        losses above 1) from that of the 100 before.
    callback: called with a partial result now and then; a true return value stops the run.
    progress: show progress on a terminal after the first second.

    Ctrl-C ends the run with what there is: the result says `interrupted`. Raises CallError
    and ArgumentError for the call, NonFiniteLoss as said.
    """
    _check_options(function, params, steps, on_nonfinite, batch_size)
    _check_kinds(optimizer=optimizer, rows=rows, resume=resume, callback=callback, data=data)
    if tolerance is not None and number("tolerance", tolerance) < 0:
        raise CallError("tolerance must not be negative", found=repr(tolerance))
    if resume is not None:
        params = {name: resume.params.get(name, value) for name, value in params.items()}
    job = _prepare(
        function,
        params,
        {**(data or {}), **more_data},
        _Options(
            optimizer or adam(),
            maximize,
            check_samples(samples),
            int(batch_size or 0),
            rows,
            averages or {},
        ),
    )
    root = resume.key if resume is not None else _packed(key)
    state = _state(job, resume)
    began = time.perf_counter()
    executable, fresh = job.compile()
    driver = Driver(
        executable.run,
        root,
        [job.arrays[i] for i in job.plan.fixed(len(job.arrays))],
        len(job.plan.trained),
        CAPACITY,
        Snapshot(
            resume.steps if resume else 0, (*(job.arrays[i] for i in job.plan.trained), *state)
        ),
        job.result_maker(resume, root),
        on_nonfinite,
        tolerance,
        callback,
    )
    if fresh:
        driver.advance(driver.now, 0)  # whatever the backend compiles at the first call
    job.compiled_at = time.perf_counter()
    job.compile_seconds = job.compiled_at - began
    return driver.run(steps, progress)


@dataclass(frozen=True)
class _Options:
    optimizer: Optimizer
    maximize: bool
    samples: int
    batch: int
    rows: str | Sequence[str] | None
    averages: Mapping[str, float]


@dataclass
class _Job:
    """A fit ready to compile: the specialised function, the plan, the arguments."""

    special: Specialization
    request: Request
    plan: Plan
    arrays: tuple[Array, ...]
    names: tuple[str, ...]
    compiled_at: float = 0.0
    compile_seconds: float = 0.0

    def compile(self) -> tuple[Executable, bool]:
        """The compiled loop, made once for each specialisation and plan; whether it is new."""
        program = self.special.program
        cache = _LOOPS.setdefault(self.special, {})
        where = (self.request, self.plan, program.backend)
        fresh = where not in cache
        if fresh:
            with deep_stack():
                if program.backend == "llvm" and _is_own(self.plan):
                    cache[where] = cached_fit(self.special, where, self.loop)
                else:
                    cache[where] = compile_module(self.loop(), program.backend, Dumps())
        return cache[where], fresh

    def loop(self) -> Module:
        """The training loop, tensors in, tensors out."""
        module = build_loop(self.special.module(self.request), self.plan)
        return run_pipeline(module, FRONT)

    def result_maker(
        self, resume: FitResult | None, root: int
    ) -> Callable[[Snapshot, Array, str], FitResult]:
        """See Driver.result."""

        def make(snapshot: Snapshot, losses: Array, stopped: str) -> FitResult:
            count = len(self.plan.trained)
            flat: list[Any] = list(self.arrays)
            for position, value in zip(self.plan.trained, snapshot.arrays):
                flat[position] = np.asarray(value)
            spent = time.perf_counter() - self.compiled_at
            compiling = self.compile_seconds
            if resume is not None:
                losses = np.concatenate([resume.losses, losses])
                spent, compiling = spent + resume.seconds, compiling + resume.compile_seconds
            return FitResult(
                self._named(flat),
                losses,
                snapshot.step,
                spent,
                compiling,
                stopped,
                [np.asarray(s) for s in snapshot.arrays[count:]],
                root,
            )

        return make

    def _named(self, flat: Sequence[Any]) -> dict[str, Any]:
        """The parameters by name, in the order they were given."""
        found, position = {}, 0
        for name, struct in self.special.lowered.params:
            size = len(leaves(struct))
            part = iter(flat[position : position + size])
            found[name] = (struct, part)
            position += size
        return {n: unflatten(*found[n], to_python) for n in self.names}


def _is_own(value: Any) -> bool:
    """Whether a plan is made of this library's records alone, so that its text says all of it."""
    if is_dataclass(value):
        own = type(value).__module__.partition(".")[0] == __name__.partition(".")[0]
        return own and all(_is_own(getattr(value, f.name)) for f in fields(value))
    if isinstance(value, tuple):
        return all(map(_is_own, value))
    return value is None or isinstance(value, bool | int | float | str)


def _check_options(
    function: Any, params: Any, steps: Any, on_nonfinite: str, batch_size: Any
) -> None:
    if not isinstance(function, CompiledFunction):
        raise CallError("fit takes a function of a program", found=repr(function))
    if not isinstance(params, Mapping) or not params:
        raise CallError(
            "fit takes the start values as a dict by parameter name",
            expected=f"{{'{function.decl.parameters[0].name}': ...}}"
            if function.decl.parameters
            else None,
            found=type(params).__name__,
        )
    if not _is_whole(steps) or not 0 <= steps < 2**31:
        raise CallError("steps is a count", expected="a whole number below 2^31", found=repr(steps))
    if on_nonfinite not in ("raise", "stop", "ignore"):
        raise CallError(
            "on_nonfinite is unknown", expected="raise, stop or ignore", found=repr(on_nonfinite)
        )
    if batch_size is not None and not (_is_whole(batch_size) and batch_size >= 1):
        raise CallError("batch_size is a count of rows", found=repr(batch_size))


_KINDS: dict[str, tuple[Any, str]] = {
    "optimizer": (Optimizer, "an optimizer, such as wg.adam(1e-3)"),
    "rows": (Sequence, "names of arguments"),
    "resume": (FitResult, "the result of a fit"),
    "callback": (Callable, "a function of the partial result"),
    "data": (Mapping, "a dict by argument"),
}


def _check_kinds(**options: Any) -> None:
    for name, value in options.items():
        kind, expected = _KINDS[name]
        if value is not None and not isinstance(value, kind):
            raise CallError(f"fit cannot use this {name}", expected=expected, found=describe(value))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _prepare(
    function: CompiledFunction, params: Mapping[str, Any], data: dict[str, Any], options: _Options
) -> _Job:
    both = [name for name in params if name in data]
    if both:
        raise CallError(f"'{both[0]}' is given both as a parameter to fit and as data")
    given = {**data, **params}
    fresh = [p.name for p in function.decl.parameters if _is_key(p) and p.name not in given]
    given |= {name: np.zeros(2, np.uint32) for name in fresh}
    bound = function._bound((), given)
    rows = _row_names(bound, options, [*params, *fresh]) if options.batch else []
    total = _total(bound, rows, options.batch) if options.batch else 0
    special = function._specialize(_narrow(bound, rows, options.batch) if rows else bound)
    lowered = special.lowered
    names, _ = choose_wrt(function.__name__, lowered.params, tuple(params))
    owners = [(n, t) for n, struct in lowered.params for _, t in leaves(struct)]
    plan = Plan(
        trained=tuple(wrt_indices(lowered.params, names)),
        keys=tuple(i for i, (n, t) in enumerate(owners) if n in fresh and t.dtype is KEY),
        rows=tuple(i for i, (n, _) in enumerate(owners) if n in rows),
        total=total,
        batch=options.batch,
        optimizer=options.optimizer,
        maximize=options.maximize,
        capacity=CAPACITY,
        averages=_averages(owners, options.averages, params),
    )
    request = Request("value_and_grad", names, options.samples)
    return _Job(special, request, plan, bound.arrays, names)


def _averages(
    owners: Sequence[tuple[str, TensorType]], wanted: Mapping[str, float], params: Mapping[str, Any]
) -> tuple[tuple[int, float], ...]:
    """Positions and decays of the arguments that follow the objective."""
    found = []
    for name, decay in wanted.items():
        places = [(i, t) for i, (n, t) in enumerate(owners) if n == name]
        if len(places) != 1 or name in params or places[0][1].shape:
            raise CallError(f"averages names '{name}', which is no scalar data argument")
        if not places[0][1].dtype.is_float or not 0.0 <= decay < 1.0:
            raise CallError(
                f"averages needs a float argument and a decay in [0, 1) for '{name}'",
                found=f"{places[0][1]} and {decay!r}",
            )
        found.append((places[0][0], float(decay)))
    return tuple(found)


def _is_key(parameter: syntax.Parameter) -> bool:
    note = parameter.annotation
    return isinstance(note, syntax.NamedType) and note.name == "key"


def _packed(key: Any) -> int:
    """The root key as one number."""
    if key is None:
        return 0
    array = key_array(key, Place("key", None))
    if array.shape:
        raise CallError("fit takes one key", found=f"an array of {array.shape}")
    return int(array)


def _state(job: _Job, resume: FitResult | None) -> list[Array]:
    """The optimiser's state to start from."""
    trained = [TensorType(_dtype(job, i), job.arrays[i].shape) for i in job.plan.trained]
    value = job.special.lowered.result
    assert isinstance(value, TensorType)
    types = job.plan.state(trained, value)
    if resume is None:
        means = [np.asarray(job.arrays[i], value.dtype.numpy) for i, _ in job.plan.averages]
        zeros = types[: len(types) - len(means)]
        return [*(np.zeros(t.shape, t.dtype.numpy) for t in zeros), *means]
    found = [(s.shape, s.dtype) for s in resume.state]
    if found != [(t.shape, t.dtype.numpy) for t in types]:
        raise CallError(
            "the result to resume comes from other parameters or another optimizer",
            expected=", ".join(map(str, types)) or "no state",
            found=", ".join(f"{d}{list(s)}" for s, d in found) or "no state",
        )
    return list(resume.state)


def _dtype(job: _Job, position: int) -> Any:
    type = job.special.lowered.module.main.params[position].type
    assert isinstance(type, TensorType)
    return type.dtype


def _row_names(bound: Bound, options: _Options, others: Sequence[str]) -> list[str]:
    """The arguments that minibatches are drawn from."""
    structs = {n: s for n, s in bound.signature if not isinstance(s, Static)}
    if options.rows is not None:
        names = [options.rows] if isinstance(options.rows, str) else list(options.rows)
        wrong = [n for n in names if n not in structs or n in others]
        if wrong:
            raise CallError(f"rows names '{wrong[0]}', which is no data argument")
        return names
    data = {n: s for n, s in structs.items() if n not in others}
    return [n for n, s in data.items() if leaves(s) and all(t.shape for _, t in leaves(s))]


def _total(bound: Bound, rows: Sequence[str], batch: int) -> int:
    """The number of rows that the arguments `rows` have in common."""
    lengths = {
        path: type.shape[0] if type.shape else 0
        for n, s in bound.signature
        if n in rows and not isinstance(s, Static)
        for path, type in leaves(s, n)
    }
    if len(set(lengths.values())) != 1:
        raise CallError(
            "minibatches need data arrays with one length of the first axis",
            found=", ".join(f"{p}: {n}" for p, n in lengths.items()) or "no data array",
            hint='name those to split: rows=["x", "y"]',
        )
    total = next(iter(lengths.values()))
    if batch > total:
        raise CallError(f"batch_size {batch} is more than the {total} rows of data")
    return total


def _narrow(bound: Bound, rows: Sequence[str], batch: int) -> Bound:
    """The signature of one minibatch."""
    items = tuple(
        (n, _with_rows(s, batch) if n in rows and not isinstance(s, Static) else s)
        for n, s in bound.signature
    )
    return replace(bound, signature=items)


def _with_rows(struct: Struct, batch: int) -> Struct:
    match struct:
        case TensorType(dtype, shape):
            return TensorType(dtype, (batch, *shape[1:]))
        case TupleStruct(items):
            return TupleStruct(tuple(_with_rows(s, batch) for s in items))
        case RecordStruct(name, fields):
            return RecordStruct(name, tuple((k, _with_rows(s, batch)) for k, s in fields))
