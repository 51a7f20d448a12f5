"""Shape programs from Python: sampling of fields on grids."""
