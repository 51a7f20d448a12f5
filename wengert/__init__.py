"""Wengert: a compiler for differentiable programs.

    import wengert as wg
    program = wg.load("examples/gmm.wg")
    value, grad = program.loss.value_and_grad(params, x)

Names load on first use, so that `import wengert` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "ArgumentError": "runtime.errors",
    "ArtifactError": "runtime.errors",
    "BackendError": "runtime.errors",
    "CallError": "runtime.errors",
    "CompiledFunction": "runtime.function",
    "CompilerBug": "ir.errors",
    "ErrorGroup": "ir.errors",
    "FitResult": "runtime.fit",
    "Program": "runtime.program",
    "NonFiniteLoss": "runtime.fit",
    "WengertError": "ir.errors",
    "adam": "runtime.optimizers",
    "adamw": "runtime.optimizers",
    "compile": "runtime.program",
    "cosine_decay": "runtime.schedules",
    "fit": "runtime.training",
    "key": "runtime.keys",
    "load": "runtime.program",
    "load_compiled": "runtime.artifact",
    "constant": "runtime.schedules",
    "exponential_decay": "runtime.schedules",
    "linear": "runtime.schedules",
    "lion": "runtime.optimizers",
    "momentum": "runtime.optimizers",
    "piecewise": "runtime.schedules",
    "rmsprop": "runtime.optimizers",
    "sgd": "runtime.optimizers",
    "warmup_cosine": "runtime.schedules",
}

_MODULES = {"infer": "runtime.infer", "shapes": "runtime.shapes", "trees": "runtime.trees"}

__all__ = [*sorted(_WHERE), *_MODULES, "__version__"]

if TYPE_CHECKING:
    from .ir.errors import CompilerBug as CompilerBug
    from .ir.errors import ErrorGroup as ErrorGroup
    from .ir.errors import WengertError as WengertError
    from .runtime import infer as infer
    from .runtime import shapes as shapes
    from .runtime import trees as trees
    from .runtime.artifact import load_compiled as load_compiled
    from .runtime.errors import ArgumentError as ArgumentError
    from .runtime.errors import ArtifactError as ArtifactError
    from .runtime.errors import BackendError as BackendError
    from .runtime.errors import CallError as CallError
    from .runtime.fit import FitResult as FitResult
    from .runtime.fit import NonFiniteLoss as NonFiniteLoss
    from .runtime.function import CompiledFunction as CompiledFunction
    from .runtime.keys import key as key
    from .runtime.optimizers import adam as adam
    from .runtime.optimizers import adamw as adamw
    from .runtime.optimizers import lion as lion
    from .runtime.optimizers import momentum as momentum
    from .runtime.optimizers import rmsprop as rmsprop
    from .runtime.optimizers import sgd as sgd
    from .runtime.program import Program as Program
    from .runtime.program import compile as compile
    from .runtime.program import load as load
    from .runtime.schedules import constant as constant
    from .runtime.schedules import cosine_decay as cosine_decay
    from .runtime.schedules import exponential_decay as exponential_decay
    from .runtime.schedules import linear as linear
    from .runtime.schedules import piecewise as piecewise
    from .runtime.schedules import warmup_cosine as warmup_cosine
    from .runtime.training import fit as fit


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = importlib.import_module(f".{_MODULES[name]}", __name__)
    elif name in _WHERE:
        value = getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    else:
        raise AttributeError(f"module 'wengert' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
