"""What annotations of the package call its arguments; imported by type checkers only."""

from collections.abc import Sequence
from typing import Any, Union

import numpy as np

from ._core import Parameter, Value

Tensor = Union[Value, Parameter]  # a symbolic value while a module or function is traced
TensorLike = Union[Value, Parameter, np.ndarray, np.generic, float, Sequence[Any]]  # arrays and numbers become constants
Size = Union[int, Sequence[int]]  # one number for all axes, or one per axis
DType = Any  # "f32", "float32", np.float32, np.dtype, or torch's
