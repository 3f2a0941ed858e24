"""Rounding numbers to a narrower dtype, where none may become infinite without a word."""

import ml_dtypes
import numpy as np

from hen_jax.core.errors import InputError


def rounded(values: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """`values` in `dtype`, to nearest even. Raises as `require_range`."""
    require_range(values, dtype, name)
    with np.errstate(over="ignore", invalid="ignore"):  # of what is no finite number already
        return values.astype(dtype, copy=False)


def require_range(values: np.ndarray, dtype: np.dtype, name: str) -> None:
    """Checks that no finite number becomes infinite in `dtype`.

    65,519 becomes the largest float16, 65,504, and passes; 65,520 would become infinity. What is
    infinite or NaN already stays what it is.

    Raises:
      InputError: names the tensor, the number and the dtype.
    """
    largest = float(ml_dtypes.finfo(dtype).max)
    if not values.size or largest >= float(ml_dtypes.finfo(values.dtype).max):
        return
    with np.errstate(over="ignore", invalid="ignore"):
        # Numpy finds these at the speed of memory; the rest is for the rare doubt.
        if max(float(values.max()), -float(values.min())) <= largest:
            return
        lost = np.isfinite(values) & ~np.isfinite(values.astype(dtype))
    if lost.any():
        worst = float(values[lost][0])
        raise InputError(
            f"{name} holds {worst:.6g}, which {dtype.name} cannot hold (at most {largest:.6g}); "
            "use bfloat16 or float32"
        )
