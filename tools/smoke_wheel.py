"""Whether the installed package works; `make check-wheel` runs it in a fresh environment, away from the source tree.

Trains from Python and by the command line, and has mypy, where it is installed, accept a right and refuse a wrong program.
"""

import importlib.metadata
import importlib.util
import os
import pathlib
import subprocess
import sys
import sysconfig
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
RIGHT = """
import numpy as np
import deepseek
from deepseek import Value, nn, ops, optim
from deepseek.nn import functional as F

class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        self.head = nn.Linear(64, 5)

    def forward(self, x: Value) -> Value:
        return ops.tanh(self.head(self.body(x))).reshape(-1, 5) + F.gelu(x).mean()

def loss(prediction: Value, target: Value) -> Value:
    return (prediction - target).abs().mean(dim=None)

x = np.zeros((8, 1, 8, 8), np.float32)
trainer = deepseek.Trainer(Net().train(), loss=loss, optimizer=optim.AdamW(lr=1e-3), epochs=2)
y: np.ndarray = trainer.predict(x)
first: float = deepseek.compile(Net(), optimizer="sgd")(x, y)
"""
# The line that mypy must refuse, and with what.
WRONG = {
    "nn.Linear('a', 2)": 'Argument 1 to "Linear" has incompatible type "str"',
    "nn.Conv2d(1, 2)": 'Missing positional argument "kernel_size"',
    "nn.MaxPool2d('2')": 'Argument 1 to "MaxPool2d" has incompatible type "str"',
    "optim.Adam('fast')": 'Argument 1 to "Adam" has incompatible type "str"',
    "deepseek.Trainer(3)": 'Argument 1 to "Trainer" has incompatible type "int"',
    "ops.softmax(np.ones(3), axis='last')": 'Argument "axis" to "softmax" has incompatible type "str"',
    "deepseek.compille": 'Module has no attribute "compille"',
}


def run(*command):
    """Output of a command that must succeed, without help from the environment's variables."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LD_LIBRARY_PATH", "MYPYPATH")}
    done = subprocess.run([str(c) for c in command], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def from_python():
    import numpy as np

    import deepseek
    from deepseek import nn, optim

    package = pathlib.Path(deepseek.__file__).resolve()
    assert package.is_relative_to(pathlib.Path(sys.prefix).resolve()), f"{package} is not the installed package"
    assert deepseek.__version__ == importlib.metadata.version("deepseek")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    x = (np.array([[2, 0], [-1, 2], [-1, -2]])[y] + 0.3 * rng.standard_normal((600, 2))).astype(np.float32)
    trainer = deepseek.Trainer(nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3)), optimizer=optim.AdamW(lr=0.02), epochs=5)
    trainer.fit((x, y), progress=False)
    accuracy = trainer.evaluate((x, y))["accuracy"]
    assert accuracy > 0.95, accuracy
    return f"deepseek {deepseek.__version__} in {package.parent}: accuracy {accuracy:.3f}"


def write_idx(path, array):
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes())


def from_the_command_line(folder):
    import numpy as np

    command = pathlib.Path(sysconfig.get_path("scripts"), "deepseek")
    assert "train" in run(command, "--help")
    assert "cpu" in run(command, "devices")
    labels = (np.arange(256) % 4).astype(np.uint8)
    images = np.zeros((256, 16, 16), np.uint8)
    for i, label in enumerate(labels):
        images[i, 4 * label:4 * label + 4] = 200
    settings = ["data.name=idx", "model.width=4", "train.epochs=2", "train.batch_size=32", f"train.output={folder / 'run'}"]
    for part in ("train", "test"):
        write_idx(folder / f"{part}_images", images)
        write_idx(folder / f"{part}_labels", labels)
        settings += [f"data.{part}_{kind}={folder / f'{part}_{kind}'}" for kind in ("images", "labels")]
    output = run(command, "train", ROOT / "examples" / "fashion_mnist.yaml", *[word for s in settings for word in ("--set", s)])
    assert (folder / "run" / "last.safetensors").exists(), output
    assert "test sample 0" in run(command, "predict", folder / "run", "--index", "0")
    return next(line for line in output.splitlines() if line.startswith("test accuracy"))


def types(folder):
    if importlib.util.find_spec("mypy") is None:
        return "mypy is not installed: type stubs are not checked"
    (folder / "right.py").write_text(RIGHT)
    wrong = "import numpy as np\nimport deepseek\nfrom deepseek import nn, ops, optim\n" + "\n".join(WRONG) + "\n"
    (folder / "wrong.py").write_text(wrong)
    mypy = [sys.executable, "-m", "mypy", "--cache-dir", str(folder / "cache")]
    run(*mypy, folder / "right.py")
    refused = subprocess.run([*mypy, folder / "wrong.py"], capture_output=True, text=True).stdout
    for number, (line, message) in enumerate(WRONG.items(), 4):
        assert f"wrong.py:{number}: error: {message}" in refused, f"{line} should be refused with: {message}\n{refused}"
    return f"mypy accepts a right program and refuses {len(WRONG)} wrong lines"


if __name__ == "__main__":
    print(from_python())
    with tempfile.TemporaryDirectory() as name:
        print("command line:", from_the_command_line(pathlib.Path(name)))
        print(types(pathlib.Path(name)))
