"""Type aliases for NumPy arrays; docstrings give the shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
StrArray = NDArray[np.str_]
RealArray = NDArray[np.floating[Any]]  # float16, float32 or float64
AnyArray = NDArray[Any]
