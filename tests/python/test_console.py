"""Training does not end with its reports: standard error that is full, closed or gone."""
import pathlib
import subprocess
import sys

import pytest

TRAIN = """
import os, sys
import numpy as np
import deepseek
from deepseek import nn
{before}
model = nn.Linear(4, 2)
trainer = deepseek.Trainer(model, epochs=3, batch_size=8, output={output!r})
history = trainer.fit((np.zeros((64, 4), np.float32), np.zeros(64, np.int64)))
assert len(history) == 3
"""


def run(output, before="", shell=""):
    script = pathlib.Path(output).parent / "train.py"
    script.write_text(TRAIN.format(before=before, output=str(output)))
    return subprocess.run(f"{sys.executable} {script} {shell}", shell=True, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("before, shell", [
    ("os.dup2(os.open('/dev/full', os.O_WRONLY), 2)", ""), ("", "2>&-"), ("os.close(2)", ""), ("sys.stderr.close()", ""), ("sys.stderr = None", ""),
    ("", "2>/dev/full")])
def test_training_goes_on(tmp_path, before, shell):
    done = run(tmp_path / "run", before, shell)
    assert done.returncode in (0, 120), done.stderr  # 120: Python itself could not flush the stream at its end
    assert (tmp_path / "run" / "best.safetensors").exists()
    assert "epoch 3/3" in (tmp_path / "run" / "log.txt").read_text()
    events, = (tmp_path / "run").glob("events*")
    assert b"epoch 3/3" not in events.read_bytes() and b"Traceback" not in events.read_bytes()


def test_what_a_stream_raises_otherwise_is_raised(tmp_path):
    done = run(tmp_path / "run", "class Stream:\n  def write(self, text): raise KeyError('mine')\n  def flush(self): pass\n"
                                 "  def isatty(self): return False\nreal, sys.stderr = sys.stderr, Stream()\nimport atexit\n"
                                 "sys.excepthook = lambda *e: real.write(repr(e[1]))")
    assert done.returncode == 1 and "KeyError('mine')" in done.stderr
