"""Voxels as targets of fits."""

from __future__ import annotations

import numpy as np

from ..errors import CallError
from ..values import Array, describe


def signed_distances(voxels: Array, cell: float = 1.0) -> Array:
    """How far cells are from the nearest of the other kind, negative inside: f32, as voxels.

    Measured from centre to centre, less half a cell: to about where the surface is. cell: the
    length of a cell's side. All inside is -inf, all outside inf.
    """
    from scipy.ndimage import distance_transform_edt

    inside = np.asarray(voxels)
    if inside.dtype != np.bool_ or not 2 <= inside.ndim <= 3:
        raise CallError("voxels are bools on a grid", found=describe(voxels))
    if inside.all() or not inside.any():
        return np.full(inside.shape, -np.inf if inside.all() else np.inf, np.float32)
    outward, inward = (np.asarray(distance_transform_edt(x)) for x in (~inside, inside))
    out: Array = np.where(inside, 0.5 - inward, outward - 0.5) * cell
    return out.astype(np.float32)
