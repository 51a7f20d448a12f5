"""Control flow, calls, and the ops that ask for derivatives.

Regions may use values of the enclosing blocks. The interpreter knows what these ops mean;
they have no NumPy reference of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

from .core import Attrs, Block, Value
from .opdef import OpDef, declare, need, tensor
from .types import BOOL, I32, TensorType, Type


def _types(values: Sequence[Value]) -> list[Type]:
    return [v.type for v in values]


def _call_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    return list(attrs["types"])


declare(
    OpDef(
        "call",
        "apply a function of the module. A custom derivative: `jvp` names a function "
        "(primals, tangents) -> (results, tangents); `fwd` names primals -> (results, residuals) "
        "and `bwd` names (residuals, cotangents) -> cotangents. Tangents and cotangents stand for "
        "the float arguments and results only, in order",
        _call_infer,
        attrs=(
            ("fn", "symbol"),
            ("jvp", "symbol"),
            ("fwd", "symbol"),
            ("bwd", "symbol"),
            ("types", "types"),
        ),
    )
)

declare(
    OpDef(
        "linear_call",
        "the linear map whose transpose is `bwd`: operands are `residuals` residuals, then "
        "tangents; only reverse mode, which transposes it, can make it run",
        _call_infer,
        attrs=(("bwd", "symbol"), ("residuals", "int"), ("types", "types")),
    )
)

declare(
    OpDef(
        "diff.jvp",
        "values and directional derivative of `fn`: operands are its arguments, then a tangent "
        "for each argument numbered in `wrt`; results are its results, then a tangent for each "
        "float result",
        _call_infer,
        attrs=(("fn", "symbol"), ("wrt", "ints"), ("types", "types")),
    )
)

declare(
    OpDef(
        "diff.vjp",
        "values and pullback of `fn`: operands are its arguments, then a cotangent for each float "
        "result; results are its results, then a cotangent for each argument numbered in `wrt`",
        _call_infer,
        attrs=(("fn", "symbol"), ("wrt", "ints"), ("types", "types")),
    )
)


def _branch_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    need(len(regions) > 0, "a switch needs a branch")
    first = _types(regions[0].results)
    for region in regions:
        need(not region.params, "a branch takes no parameters")
        need(
            _types(region.results) == first,
            f"branches yield different types: {first} and {_types(region.results)}",
        )
    return first


def _if_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    need(operands[0].type == TensorType(BOOL), f"if needs a bool, not {operands[0].type}")
    return _branch_infer(operands, attrs, regions)


def _switch_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    need(operands[0].type == TensorType(I32), f"switch needs an i32, not {operands[0].type}")
    return _branch_infer(operands, attrs, regions)


declare(
    OpDef(
        "if",
        "what the first region yields where the bool operand holds, else the second",
        _if_infer,
        arity=1,
        regions=("then", "else"),
    )
)
declare(
    OpDef(
        "switch",
        "what the region numbered by the i32 operand (clamped) yields",
        _switch_infer,
        arity=1,
        regions=("case", "*"),
    )
)


def _for_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    (body,) = regions
    trips, carries = attrs["trips"], attrs["carries"]
    need(trips >= 0 and 0 <= carries <= len(operands), "for counts are out of range")
    inits, streams = operands[:carries], operands[carries:]
    want: list[Type] = [TensorType(I32), *_types(inits)]
    for stream in streams:
        type = tensor(stream)
        need(
            type.rank > 0 and type.shape[0] == trips,
            f"for of {trips} trips streams over {type}",
        )
        want.append(type.with_shape(type.shape[1:]))
    need(_types(body.params) == want, f"for body takes {_types(body.params)}, not {want}")
    need(
        _types(body.results[:carries]) == _types(inits),
        f"for carries {_types(inits)} but its body yields {_types(body.results[:carries])}",
    )
    stacked = [tensor(v).with_shape((trips, *tensor(v).shape)) for v in body.results[carries:]]
    return [*_types(inits), *stacked]


declare(
    OpDef(
        "for",
        "run the body `trips` times, in reverse order if asked. Operands: `carries` initial "
        "carries, then arrays streamed along their first axis. Body: (i: i32, carries, elements) "
        "-> (carries, outputs). Results: last carries, outputs stacked along a new first axis (at "
        "the index they belong to). Without carries the iterations are independent: a parallel "
        "map. `checkpoint` says what reverse mode keeps: all, carry (recompute the body) or sqrt "
        "(carries of every sqrt(trips)-th iteration)",
        _for_infer,
        attrs=(
            ("trips", "int"),
            ("carries", "int"),
            ("reverse", "bool"),
            ("checkpoint", "str"),
        ),
        regions=("body",),
    )
)


def _while_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    cond, body = regions
    want = _types(operands)
    need(_types(cond.params) == want, f"while condition takes {_types(cond.params)}, not {want}")
    need(_types(body.params) == want, f"while body takes {_types(body.params)}, not {want}")
    need(_types(cond.results) == [TensorType(BOOL)], "while condition must yield one bool")
    need(_types(body.results) == want, f"while carries {want}, not {_types(body.results)}")
    return want


declare(
    OpDef(
        "while",
        "run the body on the carries while the condition holds; at most `max_trips` times "
        "unless that is 0, which reverse mode needs to be set",
        _while_infer,
        attrs=(("max_trips", "int"),),
        regions=("cond", "body"),
    )
)
