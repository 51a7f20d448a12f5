"""The intermediate representation: types, ops, builder, text form, verifier, interpreter."""

from . import (  # noqa: F401
    control,
    elementwise,
    interp_prob,
    interp_shape,
    linalg,
    loops,
    prob,
    reductions,
    shape,
    structural,
    tree,
)
from .builder import Builder, function_block
from .core import Block, Function, Module, Op, Value, free_values, walk
from .errors import CompilerBug, ErrorGroup, IRError, WengertError
from .opdef import OPS, OpDef, RuleTable
from .span import Span
from .struct import RecordStruct, Struct, TupleStruct, leaves
from .types import (
    BOOL,
    DTYPES,
    F32,
    F64,
    I32,
    I64,
    KEY,
    U32,
    BufferType,
    DType,
    TensorType,
    TreeType,
    Type,
    scalar,
)

__all__ = [
    "BOOL",
    "DTYPES",
    "F32",
    "F64",
    "I32",
    "I64",
    "KEY",
    "OPS",
    "U32",
    "Block",
    "BufferType",
    "Builder",
    "CompilerBug",
    "DType",
    "ErrorGroup",
    "Function",
    "IRError",
    "Module",
    "Op",
    "OpDef",
    "RecordStruct",
    "RuleTable",
    "Span",
    "Struct",
    "TensorType",
    "TreeType",
    "TupleStruct",
    "Type",
    "Value",
    "WengertError",
    "free_values",
    "function_block",
    "leaves",
    "scalar",
    "walk",
]
