"""Every cell there is."""

from __future__ import annotations

from tests.reuse import starlette_cells
from tests.reuse.cell import Cell

CELLS: list[Cell] = [*starlette_cells.CELLS]
