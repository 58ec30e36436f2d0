"""PyTorch as its users run it fast: eager or by torch.compile; channels_last where that helps, inference_mode, fused optimizers."""

import logging
import warnings

import cases
import harness


def build(case):
    """The PyTorch twin of a case's model, with names of parameters as ours."""
    import torch_models

    options = dict(case.options)
    if case.model.startswith("resnet"):
        return torch_models.resnet(int(case.model.removeprefix("resnet")), last_norm=cases.LAST_NORM, classes=case.classes, **options)
    if case.model.startswith("efficientnet"):
        from efficientnet_pytorch import EfficientNet

        width = {"width_coefficient": options["width"]} if "width" in options else {}
        model = EfficientNet.from_name(case.model.replace("_", "-"), image_size=case.sample[-1], num_classes=case.classes,
                                       dropout_rate=0, drop_connect_rate=0, **width)
        model.set_swish(memory_efficient=False)  # PyTorch's own SiLU
        return model
    if case.model == "unet3d":
        return torch_models.Unet3d(options["channels"], case.sample[0], case.classes)
    if case.model == "lstm":
        return torch_models.Lstm(case.sample[-1], classes=case.classes, **options)
    if case.model == "mlp":
        return torch_models.mlp(case.sample[0], classes=case.classes, **options)
    head = options.pop("head", "classes")
    if head == "mlm":
        return torch_models.BertMaskedLanguage(**options)
    return torch_models.Bert(vocabulary=0, **options) if head == "none" else torch_models.BertClassifier(case.classes, **options)


class Torch:
    def __init__(self, case, threads, compiled=False):
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.library, self.case, self.compiled = torch, case, compiled
        self.model = build(case).train(case.training)
        self.arrays = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in case.batches()]

    def save(self, path):
        import safetensors.torch

        safetensors.torch.save_file({n: t.contiguous() for n, t in self.model.state_dict().items()}, path)

    def export(self, path):
        """As ONNX, for the runtimes that take it."""
        import onnx  # noqa: F401  so that it is told to be missing
        import onnxscript  # noqa: F401

        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        warnings.simplefilter("ignore")  # of its own use of its own functions
        self.library.onnx.export(self.model.eval(), (self.arrays[0][0],), path, dynamo=True, external_data=False, verbose=False)

    def load(self, path):
        import safetensors.torch

        self.model.load_state_dict(safetensors.torch.load_file(path))

    def _arrange(self, layout):
        torch = self.library
        self.layout = layout
        chosen = torch.contiguous_format
        if layout == "channels_last":
            chosen = torch.channels_last if len(self.case.sample) == 3 else torch.channels_last_3d
        if len(self.case.sample) >= 3:
            self.model.to(memory_format=chosen)
        self.batches = [(x.contiguous(memory_format=chosen) if len(self.case.sample) >= 3 else x, y) for x, y in self.arrays]

    def prepare(self):
        torch, case = self.library, self.case
        harness.reset_peak()
        self._arrange(case.layouts[0])
        self.call = self.model
        if self.compiled:
            if not case.training:
                import torch._inductor.config

                torch._inductor.config.freezing = True  # weights become constants, in the layout that convolutions like
            self.call = torch.compile(self.model)
        if not case.training:
            return
        parameters = self.model.parameters()
        self.optimizer = (torch.optim.SGD(parameters, cases.SGD_RATE, **cases.SGD, fused=True) if case.optimizer == "sgd" else
                          torch.optim.AdamW(parameters, cases.ADAMW_RATE, fused=True))

    def _loss(self, prediction, y):
        functional = self.library.nn.functional
        if self.case.target == "vectors":
            return functional.mse_loss(prediction, y)
        if self.case.target == "tokens":
            return functional.cross_entropy(prediction.flatten(0, 1), y.flatten(), ignore_index=cases.IGNORED)
        return functional.cross_entropy(prediction, y)

    def _run(self, x, y):
        if not self.case.training:
            with self.library.inference_mode(not self.compiled), self.library.no_grad():  # freezing knows only no_grad
                return self.call(x)
        self.optimizer.zero_grad(set_to_none=True)
        with self.library.autocast("cpu", self.library.bfloat16, enabled=self.case.precision == "bfloat16"):
            loss = self._loss(self.call(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def check(self):
        def result():
            value = self._run(*self.batches[0])
            return value if self.case.training else value.numpy()

        seconds, first = harness.timed(result)
        return [first] + [result() for _ in range(cases.CHECKED_STEPS - 1 if self.case.training else 0)], seconds

    def tune(self):
        """Takes the fastest of the case's layouts, by the better of two steps each. torch.compile chooses by itself."""
        if self.compiled or len(self.case.layouts) == 1:
            return
        times = {}
        for layout in reversed(self.case.layouts):  # the last tried is the one it has
            self._arrange(layout)
            times[layout] = min(self.step() for _ in range(2))
        best = min(times, key=times.get)
        if best != self.layout:
            self._arrange(best)

    def step(self):
        self.batches.append(self.batches.pop(0))
        return harness.timed(lambda: self._run(*self.batches[0]))[0]

    def about(self):
        torch = self.library
        config = ["compiled" if self.compiled else "eager"] + ([self.layout] if len(self.case.sample) >= 3 else [])
        return {"peak_mib": harness.peak_mib(), "isa": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(),
                "version": str(torch.__version__), "config": ", ".join(config)}
