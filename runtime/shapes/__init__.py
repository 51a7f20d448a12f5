"""Shape programs from Python: sampling of fields on grids."""

from . import published as published
