"""`autoguide`: a guide for a model, as text in the language and as a compiled program."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...frontend import program as front
from ...ir.types import F64
from ..binding import CompiledFunction
