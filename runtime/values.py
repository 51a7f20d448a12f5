"""Python values to flat arrays of IR types, and back.

Numbers, lists, NumPy and JAX arrays become tensors; tuples stay tuples; dicts, dataclasses
and named tuples become records. What a parameter's annotation asks for decides the dtype:

- a float parameter takes floats of any width (float64 narrows to f32) and Python integers;
- an integer parameter takes integers in its range; a bool parameter takes bools only;
- a key parameter takes `uint32[..., 2]` arrays (as `wg.key` makes) or typed JAX keys;
- without an annotation arrays keep their dtype, Python floats take the program's `real`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..frontend import syntax
from ..ir.span import Span
from ..ir.struct import RecordStruct, Struct, TupleStruct
from ..ir.types import BOOL, DTYPES, F32, F64, I32, I64, KEY, DType, TensorType
from .errors import ArgumentError

if TYPE_CHECKING:
    from ..frontend.trees import TreeOptions

Array = np.ndarray[Any, np.dtype[Any]]
_PLAIN = {t.numpy: t for t in (F32, F64, I32, I64, BOOL)}
Records = Mapping[str, syntax.RecordDecl]


@dataclasses.dataclass(frozen=True)
class Place:
    """What an error message says of the value at fault: the parameter and the path inside it."""

    path: str
    span: Span | None

    def inside(self, step: str) -> Place:
        """The place of an item or a field of this value."""
        return Place(self.path + step, self.span)

    def fail(
        self, summary: str, expected: str, found: str, hint: str | None = None
    ) -> ArgumentError:
        """The error to raise for the value here."""
        message = f"argument '{self.path}' {summary}"
        return ArgumentError(message, self.span, expected=expected, found=found, hint=hint)


class Converter:
    """Flattens arguments of one program. `real` is the program's default float type.

    device: a class of arrays that the backend takes as they are, where they have the right dtype.
    trees: how trees are encoded.
    """

    def __init__(
        self, records: Records, real: DType, device: Any = None, trees: TreeOptions | None = None
    ) -> None:
        self.trees = trees
        self.records = records
        self.real = real
        self.device = device

    def flatten(
        self, value: Any, annotation: syntax.TypeExpr | None, place: Place, out: list[Array]
    ) -> Struct:
        """Append the arrays of `value` to `out`, contiguous and of the wanted dtypes.

        Returns the structure. Raises ArgumentError where the value cannot be that type.
        """
        match annotation:
            case syntax.TupleType(_, items):
                return self._tuple(value, items, place, out)
            case syntax.NamedType(_, name) if name in DTYPES or name == "real":
                dtype = self.real if name == "real" else DTYPES[name]
                return self._tensor(value, dtype, place, out)
            case syntax.NamedType(_, "tree"):
                return self._tree(value, place, out)
            case syntax.NamedType(_, name) if name in self.records:
                return self._record(value, self.records[name], place, out)
        return self._free(value, place, out)

    def _tuple(
        self, value: Any, items: Sequence[syntax.TypeExpr], place: Place, out: list[Array]
    ) -> Struct:
        if not isinstance(value, tuple | list) or len(value) != len(items):
            raise place.fail(
                "does not fit its type", f"a tuple of {len(items)} items", describe(value)
            )
        return TupleStruct(
            tuple(
                self.flatten(v, t, place.inside(f"[{i}]"), out)
                for i, (v, t) in enumerate(zip(value, items))
            )
        )

    def _tree(self, value: Any, place: Place, out: list[Array]) -> Struct:
        """A tree, or the arrays of its labels and places."""
        from .trees.function import argument

        arrays = isinstance(value, tuple) and all(hasattr(v, "dtype") for v in value)
        both = value if arrays else argument(value, self.trees)
        if len(both) != 2:
            raise place.fail("is no tree", "labels and places, or a tree", describe(value))
        parts = [self._tensor(v, I32, place.inside(f"[{i}]"), out) for i, v in enumerate(both)]
        return TupleStruct(tuple(parts))

    def _record(
        self, value: Any, record: syntax.RecordDecl, place: Place, out: list[Array]
    ) -> Struct:
        given = as_fields(value)
        wanted = [f.name for f in record.fields]
        if given is None or set(given) != set(wanted):
            found = f"fields {_listed(given)}" if given is not None else describe(value)
            raise place.fail(
                f"is not a {record.name}",
                f"a dict or dataclass with fields {', '.join(wanted)}",
                found,
            )
        return RecordStruct(
            record.name,
            tuple(
                (f.name, self.flatten(given[f.name], f.annotation, place.inside(f".{f.name}"), out))
                for f in record.fields
            ),
        )

    def _free(self, value: Any, place: Place, out: list[Array]) -> Struct:
        fields = as_fields(value)
        if fields is not None:
            if not all(isinstance(k, str) for k in fields):
                raise place.fail("is no record", "names as keys", describe(value))
            return RecordStruct(
                "",
                tuple((k, self._free(v, place.inside(f".{k}"), out)) for k, v in fields.items()),
            )
        if isinstance(value, tuple):
            return TupleStruct(
                tuple(self._free(v, place.inside(f"[{i}]"), out) for i, v in enumerate(value))
            )
        return self._tensor(value, None, place, out)

    def _tensor(
        self, value: Any, dtype: DType | None, place: Place, out: list[Array]
    ) -> TensorType:
        if dtype is KEY or (dtype is None and _is_typed_key(value)):
            array = key_array(value, place)
            out.append(array)
            return TensorType(KEY, array.shape)
        if self.device is not None and isinstance(value, self.device):
            own = _PLAIN.get(value.dtype)
            if own is not None and own is (dtype or own):
                out.append(value)
                return TensorType(own, value.shape)
        array = _as_array(value, dtype, place)
        target = dtype or self._own_dtype(value, array, place)
        out.append(_convert(array, target, place))
        return TensorType(target, array.shape)

    def _own_dtype(self, value: Any, array: Array, place: Place) -> DType:
        """The dtype of a value that no annotation constrains."""
        typed = hasattr(value, "dtype")
        if array.dtype.kind == "f" and (not typed or array.dtype.itemsize == 2):
            return self.real
        if array.dtype.kind == "i":
            return I64 if typed and array.dtype.itemsize == 8 else I32
        known = {t.numpy: t for t in (F32, F64, BOOL)}
        if array.dtype.newbyteorder("=") in known:
            return known[array.dtype.newbyteorder("=")]
        raise place.fail(
            "has an unsupported dtype", "float32, float64, int32, int64 or bool", str(array.dtype)
        )


def _is_typed_key(value: Any) -> bool:
    return str(getattr(value, "dtype", "")).startswith("key<")


def _as_array(value: Any, dtype: DType | None, place: Place) -> Array:
    if isinstance(value, str | bytes) or value is None or callable(value):
        raise place.fail("is not a number or an array", _wanted(dtype), describe(value))
    if isinstance(value, np.ma.MaskedArray):
        hint = "fill its gaps first: x.filled(0)"
        raise place.fail("has gaps", _wanted(dtype), describe(value), hint)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise place.fail(
            "is not a number or an array",
            _wanted(dtype),
            f"{describe(value)} ({str(error).splitlines()[0]})",
            "nested lists must be rectangular",
        ) from None
    if array.dtype.kind not in "biuf" and array.size == 0 and not hasattr(value, "dtype"):
        return array.astype(dtype.numpy if dtype else np.float32)
    if array.dtype.kind not in "biuf":
        huge = next((v for v in array.flat if isinstance(v, int) and not fits(v)), None)
        if array.dtype == object and huge is not None:
            raise place.fail("overflows", _wanted(dtype), describe(huge))
        raise place.fail("is not numeric", _wanted(dtype), f"dtype {array.dtype}")
    if array.size == 0 and not hasattr(value, "dtype") and dtype is not None:
        return array.astype(dtype.numpy)  # an empty list has no dtype of its own
    return array


def fits(number: int) -> bool:
    """Whether a whole number has 64 bits or fewer."""
    return -(2**63) <= number < 2**63


def _wanted(dtype: DType | None) -> str:
    return f"a number or array of {dtype}" if dtype else "a number, array, tuple or dict"


def _convert(array: Array, target: DType, place: Place) -> Array:
    kind = array.dtype.kind
    if target.is_float and (kind == "f" or (kind in "iu" and array.ndim == 0)):
        return _plain(array, target.numpy)
    if target.is_float and kind in "iu":
        return _exact_floats(array, target, place)
    if target.is_int and kind in "iu":
        return _in_range(array, target, place)
    if target is BOOL and kind == "b":
        return _plain(array, np.bool_)
    hint = f"convert it first: x.astype({str(target.numpy)!r})" if array.ndim else None
    raise place.fail("has the wrong dtype", str(target), str(array.dtype), hint)


def _plain(array: Array, dtype: Any) -> Array:
    """The array as compiled code reads it: contiguous and aligned, of this dtype."""
    out = np.ascontiguousarray(array, dtype).reshape(array.shape)  # which makes 0-d arrays 1-d
    return out if out.flags.aligned else out.copy()


def _exact_floats(array: Array, target: DType, place: Place) -> Array:
    """Integer data for a float parameter: taken where no digit is lost."""
    out = _plain(array, target.numpy)
    wide = out.astype(np.float64)
    inside = wide < np.iinfo(array.dtype).max + 1  # others have no integer to compare with
    if not np.all(inside & (np.where(inside, wide, 0).astype(array.dtype) == array)):
        raise place.fail(
            "holds integers that its dtype cannot hold exactly",
            str(target),
            str(array.dtype),
            f"round it yourself: x.astype({str(target.numpy)!r})",
        )
    return out


def _in_range(array: Array, target: DType, place: Place) -> Array:
    info = np.iinfo(target.numpy)
    if array.dtype != target.numpy and array.size:
        low, high = int(array.min()), int(array.max())
        if low < info.min or high > info.max:
            worst = low if low < info.min else high
            raise place.fail("overflows", f"{target}: {info.min} to {info.max}", str(worst))
    return _plain(array, target.numpy)


def key_array(value: Any, place: Place) -> Array:
    """A key or an array of keys as packed uint64, from `uint32[..., 2]` or typed JAX keys."""
    if _is_typed_key(value):
        import jax

        value = jax.random.key_data(value)
    array = np.asarray(value)
    if array.dtype == np.uint64:
        return _plain(array, np.uint64)
    if array.dtype != np.uint32 or array.ndim == 0 or array.shape[-1] != 2:
        raise place.fail(
            "is not a random key",
            "uint32[2] (or uint32[..., 2] for an array of keys)",
            describe(value),
            "make one with wg.key(seed)",
        )
    words = np.ascontiguousarray(array).view(np.uint64)
    return _plain(words.reshape(array.shape[:-1]), np.uint64)


def as_fields(value: Any) -> dict[str, Any] | None:
    """The fields of a dict, dataclass or named tuple by name; None for anything else."""
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: getattr(value, name) for name in value._fields}
    return None


def unflatten(struct: Struct, arrays: Iterator[Any], leaf: Callable[[Any], Any]) -> Any:
    """The nested tuples and dicts of `struct` with `leaf` of each array at the tensors."""
    match struct:
        case TensorType():
            return leaf(next(arrays))
        case TupleStruct(items):
            return tuple(unflatten(s, arrays, leaf) for s in items)
        case RecordStruct(_, fields):
            return {name: unflatten(s, arrays, leaf) for name, s in fields}


def to_python(array: Any) -> Any:
    """What a caller gets for one result: a NumPy scalar, an array, or keys as `uint32[..., 2]`."""
    if not isinstance(array, np.ndarray):
        return array
    if array.dtype == np.uint64:
        return array.reshape(*array.shape, 1).view(np.uint32)
    return array if array.ndim else array[()]


def describe(value: Any) -> str:
    """A short description of a Python value for an error message."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{type(value).__name__} of {value.dtype}[{','.join(map(str, value.shape))}]"
    if isinstance(value, Mapping):
        return f"a dict with keys {_listed(value) or '(none)'}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)} items"
    if isinstance(value, int) and not fits(value):
        return f"a whole number of {value.bit_length()} bits"  # Python may refuse to print it
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names))


def match_any(struct: Struct, value: Any, path: str, out: list[Any]) -> None:
    """Append the arrays of a value that must have structure `struct`, or raise ArgumentError."""
    place = Place(path, None)
    match struct:
        case TensorType(dtype, shape):
            Converter({}, F32)._tensor(value, dtype, place, out)
            if out[-1].shape != shape:
                found = TensorType(dtype, out[-1].shape)
                raise place.fail("has another shape", str(struct), str(found))
        case TupleStruct(items):
            if not isinstance(value, tuple | list) or len(value) != len(items):
                raise place.fail("does not fit", f"{len(items)} items", describe(value))
            for i, (s, v) in enumerate(zip(items, value)):
                match_any(s, v, f"{path}[{i}]", out)
        case RecordStruct(_, fields):
            given = as_fields(value)
            if given is None or set(given) != {k for k, _ in fields}:
                raise place.fail("does not fit", ", ".join(k for k, _ in fields), describe(value))
            for k, s in fields:
                match_any(s, given[k], f"{path}.{k}", out)
