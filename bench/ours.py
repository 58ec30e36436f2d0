"""DeepSeek as one of the sides that models.py measures; peers_*.py have the same methods."""

import cases
import harness


class Ours:
    def __init__(self, case, threads):
        import deepseek

        deepseek.set_num_threads(threads)
        self.library, self.case = deepseek, case
        self.model = deepseek.models.create(case.model, case.sample, case.classes, **case.options)
        self.batches = list(case.batches())

    def load(self, path):
        self.model.load_state_dict(self.library.load(path))
        harness.reset_peak()

    def _loss(self):
        if self.case.target != "tokens":
            return "mse_loss" if self.case.target == "vectors" else "cross_entropy"
        ops, classes, rows = self.library.ops, self.case.vocabulary, self.case.batch * self.case.sample[0]
        return lambda logits, y: ops.cross_entropy(ops.reshape(logits, dims=[rows, classes]), ops.reshape(y, dims=[rows]), ignore_index=cases.IGNORED)

    def prepare(self):
        optim = self.library.optim
        if not self.case.training:
            self.run = self.library.freeze(self.model.eval())
            return
        optimizer = optim.SGD(cases.SGD_RATE, **cases.SGD) if self.case.optimizer == "sgd" else optim.AdamW(cases.ADAMW_RATE)
        self.run = self.library.compile(self.model, self._loss(), optimizer, precision=self.case.precision)

    def _run(self, x, y):
        return self.run(x, y) if self.case.training else self.run(x)

    def check(self):
        """The first losses, or the prediction; and the seconds of the first call, which compiles."""
        seconds, first = harness.timed(lambda: self._run(*self.batches[0]))
        return [first] + [self._run(*self.batches[0]) for _ in range(cases.CHECKED_STEPS - 1 if self.case.training else 0)], seconds

    def tune(self):
        """Nothing to choose."""

    def step(self):
        """Seconds of one step, on the next batch."""
        self.batches.append(self.batches.pop(0))
        return harness.timed(lambda: self._run(*self.batches[0]))[0]

    def profile(self):
        """One dict per node of a step that is already warm."""
        x, y = self.batches[0]
        return self.run.profile(x, y) if self.case.training else self.run.profile(x)

    def peak(self):
        """FLOPs a second that the threads reach in multiply-adds."""
        return self.library._core.measure_peak()["flops_per_second"]

    def about(self):
        return {"peak_mib": harness.peak_mib(), "isa": self.library.isa(), "threads": self.library.num_threads(),
                "version": self.library.__version__, "config": "default"}
