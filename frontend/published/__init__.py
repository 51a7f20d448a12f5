"""The published shape notation (Tian et al. 2019): its text and numeric forms, and its voxels."""

from .errors import NotationMistake, UnknownKind, WrongLoop, WrongParameters
from .kinds import KINDS, Kind, find_kind
from .model import Draw, Rot, Statement, Trans, expanded
from .program import Program, from_blocks, parse

__all__ = [
    "KINDS",
    "Draw",
    "Kind",
    "NotationMistake",
    "Program",
    "Rot",
    "Statement",
    "Trans",
    "UnknownKind",
    "WrongLoop",
    "WrongParameters",
    "expanded",
    "find_kind",
    "from_blocks",
    "parse",
]
