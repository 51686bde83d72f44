"""Choosing instances of a result by number or by condition, as ``result[...]`` does."""

from __future__ import annotations

import numpy as np


def instance_numbers(index: object, count: int) -> np.ndarray:
    """Return the numbers of the instances that an index chooses: a 0-d array for a whole number, else a 1-d one.

    Args:
        index: A whole number, a list or array of whole numbers, or a list or array of ``count`` bools.
        count: How many instances there are.

    Raises:
        IndexError: There are fewer instances, or another number of bools.
        TypeError: The index is something else.
    """
    what = "the instances of a result are numbered: r[0], r[-1], r[1:3], r[[0, 2]] or r[r.scores > 0.5]"
    if isinstance(index, tuple | str | bytes | bool | np.bool_):
        raise TypeError(f"{what}; got {type(index).__name__} {index!r:.60}")
    array = np.asarray(index)
    if array.ndim == 1 and not array.size and isinstance(index, list):
        array = array.astype(np.intp)  # an empty list has no type
    if array.ndim > 1 or array.dtype.kind not in "iub":
        raise TypeError(f"{what}; got {type(index).__name__} {index!r:.60}")
    if array.dtype.kind == "b":
        if array.shape != (count,):
            raise IndexError(f"this result has {count} instances, so an array of bools needs as many; got {array.size}")
        return np.flatnonzero(array)
    outside = array[(array < -count) | (array >= count)]
    if outside.size:
        raise IndexError(f"there is no instance {outside.flat[0]}: this result has {count}, numbered from 0")
    return array.astype(np.intp)
