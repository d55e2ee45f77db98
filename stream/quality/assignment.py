"""Which prediction belongs to which object where ids do not tell: the assignment with the highest total.

Owns: the Hungarian method with potentials. Pure; any thread. Never: gives an object two predictions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def best_assignment(gains_rc: Floats) -> list[tuple[int, int]]:
    """Pairs of row and column with the highest sum of gains; as many as the shorter side is long."""
    if gains_rc.shape[0] > gains_rc.shape[1]:
        return sorted((row, column) for column, row in best_assignment(gains_rc.T))
    num_rows, num_columns = gains_rc.shape
    costs = np.zeros((num_rows + 1, num_columns + 1))
    costs[1:, 1:] = -gains_rc
    of_row, of_column = np.zeros(num_rows + 1), np.zeros(num_columns + 1)
    owner = np.zeros(num_columns + 1, np.int64)  # row of each column; place 0 stands for none
    for row in range(1, num_rows + 1):
        owner[0] = row
        _augment(costs, (of_row, of_column), owner)
    return sorted((int(owner[column]) - 1, column - 1) for column in range(1, num_columns + 1) if owner[column])


def _augment(costs: Floats, potentials: tuple[Floats, Floats], owner: NDArray[np.int64]) -> None:
    """Gives the row at owner[0] a column, along the cheapest path of exchanges."""
    of_row, of_column = potentials
    slack = np.full(owner.size, np.inf)
    before = np.zeros(owner.size, np.int64)
    is_done = np.zeros(owner.size, np.bool_)
    column = 0
    while owner[column]:
        is_done[column] = True
        row = owner[column]
        reduced = costs[row] - of_row[row] - of_column
        better = ~is_done & (reduced < slack)
        slack[better], before[better] = reduced[better], column
        nearest = int(np.argmin(np.where(is_done, np.inf, slack)))
        step = slack[nearest]
        of_row[owner[is_done]] += step
        of_column[is_done] -= step
        slack[~is_done] -= step
        column = nearest
    while column:
        owner[column] = owner[before[column]]
        column = int(before[column])
