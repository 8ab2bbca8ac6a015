"""The dial of a guidance adapter: the adapter scale λ that gives a guidance scale w.

A training measures it and stores it with the weights, as pairs of w and λ that both rise. The
expectation, λ = (w − 1) / (w_train − 1), takes its place where it was not measured.
"""

from typing import Any

import numpy as np

from .checks import is_number_between

MAX_POINTS = 100  # of a stored dial
Points = list[list[float]]  # of w and λ each


def adapter_scale_for(metadata: dict[str, Any], w: float) -> float:
    """Return the λ that gives the guidance scale w, linear between the stored pairs.

    metadata: of a guidance adapter
    w: 1 or more; 1 is the base's own pass, and λ = 0

    Errors: ValueError if the adapter gives no such w
    """
    known, scales = _columns(metadata)
    highest = known[-1]
    if not 1 <= w <= highest:
        raise ValueError(
            f"guidance scale: given {w:g}; allowed is 1 to {highest:g}, which this adapter gives"
        )
    return float(np.interp(w, known, scales))


def guidance_scale_at(metadata: dict[str, Any], adapter_scale: float) -> float:
    """Return the w that a λ of 0 or more gives, the largest stored one at most."""
    known, scales = _columns(metadata)
    return float(np.interp(adapter_scale, scales, known))


def _columns(metadata: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    known, scales = np.array([[1.0, 0.0], *dial_points(metadata)]).T
    return known, scales


def dial_points(metadata: dict[str, Any]) -> Points:
    """Return the stored pairs of w and λ, or the expected one of λ = 1."""
    return metadata.get("dial") or [[metadata["w_train"], 1.0]]


def is_dial(points: Any) -> bool:
    """Return True if a value can be a stored dial."""
    if not isinstance(points, list) or len(points) > MAX_POINTS:
        return False
    for point in points:
        if not isinstance(point, list) or len(point) != 2:
            return False
        if not (is_number_between(point[0], 1, 1000) and is_number_between(point[1], 0, 10)):
            return False
    return all(np.all(np.diff(column) > 0) for column in zip([1.0, 0.0], *points, strict=True))
