"""The rows of models.py: what each trains or predicts, at which sizes, beside whom."""

import dataclasses

import numpy as np

SGD = {"momentum": 0.9, "weight_decay": 1e-4}
SGD_RATE, ADAMW_RATE = 1e-3, 1e-4
# Largest difference of the losses of the first training steps, which repeat one batch and move its loss by a few percent.
LOSS_TOLERANCE = 1e-4
CHECKED_STEPS = 3
# Largest difference of the predictions, relative to the largest of them.
OUTPUT_TOLERANCE = 1e-4
# With dropout each draws other masks; the loss is a mean over so many elements that it hardly moves.
DROPOUT_TOLERANCE = 2e-2
# Both round to 8 bits, but not always the same values.
MIXED_TOLERANCE = 2e-2
# What the last norm of a residual block starts as. With 1 a fresh ResNet-50 multiplies rounding: weights changed by 1e-7 move
# PyTorch's own third loss by 3e-3, so a comparison would say little. (Goyal et al. 2017 start at 0, which leaves gradients 0.)
LAST_NORM = 0.2
MASKED = 0.15  # of the tokens, in masked language modelling
IGNORED = -100  # the class of the others

TRAINING = ("torch", "torch.compile")
INFERENCE = ("torch", "torch.compile", "onnxruntime", "openvino")


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    model: str  # of the zoo; `options` are its parameters
    training: bool
    batch: int
    sample: tuple  # shape of an input, without the batch
    options: dict = dataclasses.field(default_factory=dict)
    classes: int = 1000
    target: str = "class"  # "class", "voxels" (a class each), "tokens" (of those masked), "vectors"
    optimizer: str = "adamw"
    peers: tuple = TRAINING
    layouts: tuple = ("contiguous",)  # of PyTorch; the fastest counts
    compiled: bool = False  # torch.compile is fast enough to be measured without --compile
    precision: str = "float32"  # or bfloat16: mixed, by autocast in PyTorch; only where the CPU has instructions for it
    extra: bool = False  # only where --only or --all asks for it

    @property
    def vocabulary(self):
        """0 where inputs are no tokens."""
        return self.options.get("vocabulary", 0)

    @property
    def tolerance(self):
        if not self.training:
            return OUTPUT_TOLERANCE
        if self.precision != "float32":
            return MIXED_TOLERANCE
        return DROPOUT_TOLERANCE if self.options.get("dropout", 0) else LOSS_TOLERANCE

    def batches(self):
        """A few batches of (x, y), that steps go around."""
        random = np.random.default_rng(7)
        shape = (self.batch, *self.sample)
        for _ in range(4 if self.training else 1):
            x = random.integers(0, self.vocabulary, shape) if self.vocabulary else random.standard_normal(shape, np.float32)
            if self.target == "vectors":
                y = random.standard_normal(shape, np.float32)
            elif self.target == "voxels":
                y = random.integers(0, self.classes, (self.batch, *self.sample[1:]))
            elif self.target == "tokens":
                y = np.where(random.random(shape) < MASKED, random.integers(0, self.vocabulary, shape), IGNORED)
            else:
                y = random.integers(0, self.classes, self.batch)
            yield x, y


def _sizes(quick):
    """Sample shapes and model parameters: those of the papers, or tiny ones."""
    if not quick:
        tokens = {"vocabulary": 30522, "dropout": 0.0}
        return {"image": (3, 224, 224), "resnet": {}, "efficientnet": {}, "volume": (1, 64, 64, 64), "unet": {"channels": (32, 64, 128)},
                "words": (128,), "bert": tokens, "stack": (128, 768), "layers": {}, "sequence": (100, 512), "short": (20, 512),
                "lstm": {"width": 512, "layers": 2}, "mlp": {"width": 256, "layers": 3}}
    small = {"width": 64, "layers": 2, "heads": 4}
    return {"image": (3, 64, 64), "resnet": {"width": 8, "blocks": 1}, "efficientnet": {"width": 0.5}, "volume": (1, 16, 16, 16),
            "unet": {"channels": (8, 16)}, "words": (8,), "bert": {"vocabulary": 50, "dropout": 0.0, **small}, "stack": (8, 64), "layers": small,
            "sequence": (8, 16), "short": (4, 16), "lstm": {"width": 16, "layers": 2}, "mlp": {"width": 32, "layers": 3}}


def cases(quick=False):
    s = _sizes(quick)

    def batch(full):
        return min(full, 2) if quick else full

    def resnet(layers, **more):
        sizes = {"sample": s["image"], "options": s["resnet"], "layouts": ("channels_last",)}
        yield Case(f"resnet{layers}_train", f"resnet{layers}", True, batch(16), optimizer="sgd", **sizes, **more)
        for n in (1, 16):
            yield Case(f"resnet{layers}_infer_{n}", f"resnet{layers}", False, batch(n), peers=INFERENCE, **sizes, **more)

    def layers(name, training, n, dropout, peers):
        return Case(name, "bert", training, batch(n), s["stack"], {**s["layers"], "dropout": dropout, "head": "none"}, target="vectors", peers=peers,
                    extra=True)

    def mixed(case):
        return dataclasses.replace(case, name=case.name + "_bf16", precision="bfloat16")

    train, *infer = resnet(50)
    lstm, mlp = {"options": s["lstm"], "classes": 10}, {"options": s["mlp"], "classes": 2, "peers": (*TRAINING, "jax"), "compiled": not quick}
    bert = Case("bert_mlm_train", "bert", True, batch(8), s["words"], {**s["bert"], "head": "mlm"}, target="tokens")
    return [
        train,
        bert,
        mixed(train),
        mixed(bert),
        Case("unet3d_train", "unet3d", True, 1, s["volume"], s["unet"], 2, "voxels", layouts=("contiguous", "channels_last")),
        Case("efficientnet_b0_train", "efficientnet_b0", True, batch(16), s["image"], {**s["efficientnet"], "dropout": 0.0, "drop_connect": 0.0},
             optimizer="sgd", layouts=("channels_last", "contiguous")),
        Case("lstm_train", "lstm", True, batch(32), s["sequence"], **lstm),
        Case("lstm_train_1", "lstm", True, 1, s["short"], **lstm),
        Case("mlp_train", "mlp", True, 16 if quick else 256, (64,), **mlp),
        Case("mlp_train_8", "mlp", True, 8, (64,), **mlp),
        *infer,
        Case("bert_infer_1", "bert", False, 1, s["words"], s["bert"], 2, peers=INFERENCE),
        *resnet(18, extra=True),
        Case("unet3d_small_train", "unet3d", True, 1, (1, 16, 16, 16) if quick else (1, 32, 32, 32), {"channels": (16, 32)}, 2, "voxels", extra=True),
        layers("bert_layers_train", True, 8, 0.0, TRAINING),
        layers("bert_layers_train_dropout", True, 8, 0.1, TRAINING),
        layers("bert_layers_infer_8", False, 8, 0.0, INFERENCE),
    ]
