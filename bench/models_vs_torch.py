"""Training and inference of ResNet-18/50 and BERT-base's layers: DeepSeek beside eager PyTorch.

Both get the same initial weights and inputs. PyTorch runs as its users run it fast: channels_last for images, inference_mode,
fused optimizers, gradients set to None. The first results must agree, else the row fails. Ratios are PyTorch's time over ours,
above 1 where we are faster.
"""

import argparse
import collections
import dataclasses
import pathlib
import sys
import tempfile

import numpy as np

import harness

# Largest difference of the losses of the first training steps, which repeat one batch and move its loss by a few percent.
SGD = {"momentum": 0.9, "weight_decay": 1e-4}
SGD_RATE, ADAMW_RATE = 1e-3, 1e-4
LOSS_TOLERANCE = 1e-4
# What the last norm of a residual block starts as. With 1 a fresh ResNet-50 multiplies rounding: weights changed by 1e-7 move
# PyTorch's own third loss by 3e-3, so a comparison would say little. (Goyal et al. 2017 start at 0, which leaves gradients 0.)
LAST_NORM = 0.2
# Largest difference of the predictions, relative to the largest of them.
OUTPUT_TOLERANCE = 1e-4
# With dropout both draw other masks; the loss is a mean over so many elements that it hardly moves.
DROPOUT_TOLERANCE = 2e-2
CHECKED_STEPS = 3


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    model: str
    training: bool
    batch: int
    dropout: float = 0.0
    quick: bool = False

    @property
    def images(self):
        return self.model.startswith("resnet")

    @property
    def sample(self):
        """[C, H, W], or [T, width]."""
        if self.images:
            return [3, 64, 64] if self.quick else [3, 224, 224]
        return [8, 64] if self.quick else [128, 768]

    @property
    def options(self):
        if self.images:
            return {"width": 8, "blocks": 1} if self.quick else {}
        return {"width": 64, "layers": 2, "heads": 4, "dropout": self.dropout} if self.quick else {"dropout": self.dropout}

    def batches(self):
        """A few batches of (x, y), that steps go around."""
        random = np.random.default_rng(7)
        shape = [self.batch, *self.sample]
        for _ in range(4 if self.training else 1):
            x = random.standard_normal(shape, np.float32)
            yield x, random.integers(0, 1000, self.batch) if self.images else random.standard_normal(shape, np.float32)

    @property
    def tolerance(self):
        if not self.training:
            return OUTPUT_TOLERANCE
        return DROPOUT_TOLERANCE if self.dropout else LOSS_TOLERANCE


def cases(quick):
    batches = (1, 2) if quick else (1, 16)
    for model in ("resnet18", "resnet50"):
        yield Case(f"{model}_train", model, True, 2 if quick else 16, quick=quick)
        for batch in batches:
            yield Case(f"{model}_infer_{batch}", model, False, batch, quick=quick)
    yield Case("bert_train", "bert", True, 2 if quick else 8, quick=quick)
    yield Case("bert_train_dropout", "bert", True, 2 if quick else 8, 0.1, quick=quick)
    for batch in (1, 2 if quick else 8):
        yield Case(f"bert_infer_{batch}", "bert", False, batch, quick=quick)


class Ours:
    def __init__(self, case, threads):
        import deepseek

        deepseek.set_num_threads(threads)
        self.library, self.case = deepseek, case
        head = {} if case.images else {"head": "none"}
        self.model = deepseek.models.create(case.model, case.sample, 1000, **case.options, **head)
        self.batches = list(case.batches())

    def load(self, path):
        self.model.load_state_dict(self.library.load(path))
        harness.reset_peak()

    def prepare(self):
        deepseek, case = self.library, self.case
        if not case.training:
            self.model.eval()
        elif case.images:
            self.run = deepseek.compile(self.model, "cross_entropy", deepseek.optim.SGD(SGD_RATE, **SGD))
        else:
            self.run = deepseek.compile(self.model, "mse_loss", deepseek.optim.AdamW(ADAMW_RATE))

    def _run(self, x, y):
        return self.run(x, y) if self.case.training else self.model(x)

    def check(self):
        """The first losses, or the prediction."""
        return [self._run(*self.batches[0]) for _ in range(CHECKED_STEPS if self.case.training else 1)]

    def step(self):
        """Seconds of one step, on the next batch."""
        self.batches.append(self.batches.pop(0))
        return harness.timed(lambda: self._run(*self.batches[0]))[0]

    def profile(self):
        """One dict per node of a step that is already warm."""
        x, y = self.batches[0]
        if self.case.training:
            return self.run.profile(x, y)
        program = self.library.compile(self.model.graph(x))
        state = self.model.state_dict() | {"x0": x}
        arrays = [state[name] for name in program.input_names]
        program.run(arrays)
        return program.profile(arrays)

    def about(self):
        return {"peak_mib": harness.peak_mib(), "isa": self.library.isa(), "threads": self.library.num_threads()}


class Torch:
    def __init__(self, case, threads, compiled):
        import torch
        import torch_models

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.library, self.case = torch, case
        if case.images:
            self.model = torch_models.resnet(int(case.model.removeprefix("resnet")), last_norm=LAST_NORM, **case.options)
        else:
            self.model = torch_models.Bert(vocabulary=0, **case.options)
        self.model.train(case.training)
        if case.images:
            self.model.to(memory_format=torch.channels_last)
        self.batches = []
        for x, y in case.batches():
            x, y = torch.from_numpy(x), torch.from_numpy(y)
            self.batches.append((x.contiguous(memory_format=torch.channels_last) if case.images else x, y))
        self.call = torch.compile(self.model) if compiled else self.model
        if case.training and case.images:
            self.optimizer = torch.optim.SGD(self.model.parameters(), SGD_RATE, **SGD, fused=True)
            self.loss = torch.nn.functional.cross_entropy
        elif case.training:
            self.optimizer = torch.optim.AdamW(self.model.parameters(), ADAMW_RATE, fused=True)
            self.loss = torch.nn.functional.mse_loss

    def save(self, path):
        import safetensors.torch

        safetensors.torch.save_file({n: t.contiguous() for n, t in self.model.state_dict().items()}, path)
        harness.reset_peak()

    def _train(self, x, y):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.call(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def _infer(self, x):
        with self.library.inference_mode():
            return self.call(x)

    def _run(self, x, y):
        return self._train(x, y) if self.case.training else self._infer(x)

    def check(self):
        return [self._train(*self.batches[0]) for _ in range(CHECKED_STEPS)] if self.case.training else [self._infer(self.batches[0][0]).numpy()]

    def step(self):
        self.batches.append(self.batches.pop(0))
        return harness.timed(lambda: self._run(*self.batches[0]))[0]

    def about(self):
        torch = self.library
        return {"peak_mib": harness.peak_mib(), "isa": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(),
                "version": str(torch.__version__)}


def run(case, args):
    """A row of the result; `error` says where the two disagree."""
    with harness.Side("PyTorch", args.threads, Torch, case, args.threads, args.compile) as theirs, \
            harness.Side("DeepSeek", args.threads, Ours, case, args.threads) as ours:
        with tempfile.TemporaryDirectory() as folder:
            weights = str(pathlib.Path(folder) / "weights.safetensors")
            theirs.call("save", weights)
            ours.call("load", weights)
        ours.call("prepare")
        difference = harness.disagreement(ours.call("check"), theirs.call("check"))
        row = {"name": case.name, "difference": difference, "tolerance": case.tolerance}
        if not difference <= case.tolerance:
            row["error"] = f"{case.name}: results differ by {difference:.2g} of the largest, at most {case.tolerance:g} is expected"
            return row
        seconds = 0 if case.quick else args.seconds
        row |= harness.summary(*harness.interleave(ours, theirs, warmup=1, seconds=seconds, least=args.rounds))
        row["ours"] |= ours.call("about")
        row["peer"] |= theirs.call("about")
        return row


def print_profile(case, args):
    """Where our step's time goes: by op and implementation, then the slowest nodes."""
    with harness.Side("DeepSeek", args.threads, Ours, case, args.threads) as ours:
        ours.call("prepare")
        ours.call("check")
        runs = [ours.call("profile") for _ in range(args.rounds)]
    nodes = [{**row[0], "seconds": min(r["seconds"] for r in row)} for row in zip(*runs)]
    total = sum(n["seconds"] for n in nodes)
    groups = collections.defaultdict(lambda: [0.0, 0])
    for node in nodes:
        group = groups[node["op"], node["implementation"].split(" (")[0]]
        group[0] += node["seconds"]
        group[1] += 1
    print(f"\n{case.name}: {1e3 * total:.1f} ms in {len(nodes)} nodes, the shortest of {args.rounds} runs each")
    rows = [(op, implementation, count, f"{1e3 * s:.2f}", f"{100 * s / total:.1f}")
            for (op, implementation), (s, count) in sorted(groups.items(), key=lambda g: -g[1][0])]
    harness.print_table(("op", "implementation", "nodes", "ms", "%"), rows)
    slowest = sorted(nodes, key=lambda n: -n["seconds"])[:args.nodes]
    print()
    harness.print_table(("scope", "op", "implementation", "ms", "types"),
                        [(n["scope"], n["op"], n["implementation"], f"{1e3 * n['seconds']:.2f}", n["types"]) for n in slowest])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="ROW", help="rows of these names, or whose names hold them")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs, not how fast")
    parser.add_argument("--threads", type=int, default=2, help="threads of each library (default 2)")
    parser.add_argument("--seconds", type=float, default=20, help="to measure each row (default 20)")
    parser.add_argument("--rounds", type=int, default=3, help="steps of each library at least (default 3)")
    parser.add_argument("--compile", action="store_true", help="PyTorch by torch.compile rather than eager")
    parser.add_argument("--profile", action="store_true", help="only show where our time goes, node by node")
    parser.add_argument("--nodes", type=int, default=20, help="how many of the slowest nodes --profile shows (default 20)")
    parser.add_argument("--json", metavar="FILE", help="also write the result here")
    args = parser.parse_args()
    names = [c.name for c in cases(args.quick)]
    chosen = [c for c in cases(args.quick)
              if not args.only or any(o == c.name or o in c.name and o not in names for o in args.only)]
    if not chosen:
        parser.error(f"no row is named {' or '.join(args.only)}; there are: {', '.join(names)}")
    if args.profile:
        for case in chosen:
            print_profile(case, args)
        return 0
    machine = harness.machine()
    print(f"{machine['cpu']}, {args.threads} threads of {machine['cores']} cores, load {machine['load']:.1f} at the start", flush=True)
    rows = []
    for case in chosen:
        rows.append(run(case, args))
        row = rows[-1]
        print(row.get("error") or f"{case.name}: {row['ratio_median']:.2f}", file=sys.stderr, flush=True)
    good = [r for r in rows if "error" not in r]
    if good:
        ours, peer = good[0]["ours"], good[0]["peer"]
        print(f"instruction sets: ours {ours['isa']}, PyTorch {peer['version']} {peer['isa']} ({'compiled' if args.compile else 'eager'})")
        harness.print_table(
            ("row", "ours min", "median ms", "PyTorch min", "median ms", "ratio min", "median", "steps", "ours MiB", "PyTorch MiB", "difference"),
            [(r["name"], *(f"{r[s][k]:.1f}" for s in ("ours", "peer") for k in ("min_ms", "median_ms")), f"{r['ratio_min']:.2f}",
              f"{r['ratio_median']:.2f}", r["ours"]["steps"], f"{r['ours']['peak_mib']:.0f}", f"{r['peer']['peak_mib']:.0f}",
              f"{r['difference']:.0e}") for r in good])
    harness.write_json({"machine": machine, "compiled": args.compile, "quick": args.quick, "rows": rows}, args.json)
    return 1 if len(good) < len(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
