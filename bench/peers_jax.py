"""JAX: the MLP's training step under jit, parameters and moments donated, with AdamW as PyTorch defines it."""

import functools
import os

import cases
import harness


class Jax:
    def __init__(self, case, threads):
        # XLA has as many threads as it finds cores.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        os.environ["JAX_PLATFORMS"] = "cpu"
        import jax

        self.library, self.case, self.threads = jax, case, threads
        self.batches = list(case.batches())

    def load(self, path):
        import safetensors.numpy

        weights = safetensors.numpy.load_file(path)
        layers = sorted({int(name.split(".")[0]) for name in weights})
        self.parameters = [(weights[f"{i}.weight"], weights[f"{i}.bias"]) for i in layers]

    def prepare(self):
        jax, numpy = self.library, self.library.numpy
        harness.reset_peak()

        def loss(parameters, x, y):
            for i, (weight, bias) in enumerate(parameters):
                x = x @ weight.T + bias
                if i + 1 < len(parameters):
                    x = jax.nn.relu(x)
            return -numpy.mean(numpy.take_along_axis(jax.nn.log_softmax(x), y[:, None], 1))

        def adamw(p, g, m, v, step, rate=cases.ADAMW_RATE, beta1=0.9, beta2=0.999, epsilon=1e-8, decay=0.01):
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
            update = m / (1 - beta1**step) / (numpy.sqrt(v / (1 - beta2**step)) + epsilon)
            return p * (1 - rate * decay) - rate * update, m, v

        @functools.partial(jax.jit, donate_argnums=0)
        def train(state, x, y):
            parameters, first, second, step = state
            value, gradients = jax.value_and_grad(loss)(parameters, x, y)
            leaves, tree = jax.tree.flatten(parameters)
            moments = [jax.tree.leaves(t) for t in (gradients, first, second)]
            updated = [adamw(*tensors, step) for tensors in zip(leaves, *moments)]
            return (*(jax.tree.unflatten(tree, column) for column in zip(*updated)), step + 1), value

        parameters = jax.tree.map(numpy.array, self.parameters)
        self.state = (parameters, jax.tree.map(numpy.zeros_like, parameters), jax.tree.map(numpy.zeros_like, parameters), numpy.float32(1))
        self.train = train

    def _run(self, x, y):
        # All of it: the loss may be there before the update is.
        self.state, loss = self.library.block_until_ready(self.train(self.state, x, y))
        return float(loss)

    def check(self):
        seconds, first = harness.timed(lambda: self._run(*self.batches[0]))
        return [first] + [self._run(*self.batches[0]) for _ in range(cases.CHECKED_STEPS - 1)], seconds

    def tune(self):
        """Nothing to choose."""

    def step(self):
        self.batches.append(self.batches.pop(0))
        return harness.timed(lambda: self._run(*self.batches[0]))[0]

    def about(self):
        return {"peak_mib": harness.peak_mib(), "isa": f"XLA, at most {harness.host_isa()}", "threads": self.threads,
                "version": self.library.__version__, "config": "jit, donated"}
