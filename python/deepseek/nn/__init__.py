"""Layers with PyTorch's class names, arguments, state names and initial distributions, so that weights exchange by name.

Call a module on arrays to run it, or on symbolic values inside another module's forward to build the graph.
"""

from .. import tensor  # noqa: F401  gives symbolic values their methods
from .._core import Parameter, manual_seed
from . import functional, layers
from .containers import ModuleDict, ModuleList, Sequential
from .layers import *  # noqa: F403
from .module import Module, _type_of
from .sequence import GRU, LSTM, MultiheadAttention, TransformerEncoder, TransformerEncoderLayer

__all__ = ["GRU", "LSTM", "Module", "ModuleDict", "ModuleList", "MultiheadAttention", "Parameter", "Sequential", "TransformerEncoder", "TransformerEncoderLayer",
           "functional", "manual_seed", *layers.__all__]
