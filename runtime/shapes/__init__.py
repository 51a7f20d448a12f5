"""Shapes from Python: meshes, pictures and files of fields, and the published notation."""

from . import published as published
from .bounds import Box as Box
from .camera import Camera as Camera
from .camera import around as around
from .field import InvalidShape as InvalidShape
from .field import UndefinedField as UndefinedField
from .files import load_voxels as load_voxels
from .files import save_voxels as save_voxels
from .grids import signed_distances as signed_distances
from .mesh import CutSurface as CutSurface
from .mesh import Mesh as Mesh
from .mesh import NoSurface as NoSurface
from .mesh import mesh as mesh
from .pictures import Picture as Picture
from .pictures import encode_png as encode_png
from .pictures import save_gif as save_gif
from .pruned import GridTooLarge as GridTooLarge
from .render import render as render
from .render import turntable as turntable
