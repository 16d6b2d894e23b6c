"""Every cell there is."""

from __future__ import annotations

from tests.reuse import (
    django_cells,
    fastapi_cells,
    flask_cells,
    starlette_cells,
    subrequest_cells,
)
from tests.reuse.cell import Cell

CELLS: list[Cell] = [
    *django_cells.CELLS,
    *fastapi_cells.CELLS,
    *flask_cells.CELLS,
    *starlette_cells.CELLS,
    *subrequest_cells.CELLS,
]
