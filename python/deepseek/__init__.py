"""DeepSeek: a modelling framework in which a model is a graph and a training step is one compiled program."""

from ._core import Graph, Program, Step, compile, isa, num_threads, op_names, samples, set_num_threads

__all__ = ["Graph", "Program", "Step", "compile", "isa", "num_threads", "op_names", "samples", "set_num_threads"]
