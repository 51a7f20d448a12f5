"""How structured values (tuples, records) flatten to the tensors that the IR works on."""

from __future__ import annotations

from dataclasses import dataclass

from .types import TensorType


@dataclass(frozen=True, slots=True)
class TupleStruct:
    """Several values in order."""

    items: tuple[Struct, ...]


@dataclass(frozen=True, slots=True)
class RecordStruct:
    """Named fields in order; `name` is the declared record, "" for one known by its fields."""

    name: str
    fields: tuple[tuple[str, Struct], ...]


Struct = TensorType | TupleStruct | RecordStruct


def leaves(struct: Struct, path: str = "") -> list[tuple[str, TensorType]]:
    """The tensors of `struct` in order, each with its path (`.mean`, `[0].w`)."""
    match struct:
        case TensorType():
            return [(path, struct)]
        case TupleStruct(items):
            parts = [(f"{path}[{i}]", s) for i, s in enumerate(items)]
        case RecordStruct(_, fields):
            parts = [(f"{path}.{name}", s) for name, s in fields]
    return [leaf for p, s in parts for leaf in leaves(s, p)]
