"""Lines for who watches, on stderr: where that is full, closed or not there, they are lost, and the work goes on."""

from __future__ import annotations

import os
import sys


def write(text: str) -> None:
    stream = sys.stderr
    try:
        if stream is sys.__stderr__:  # past its buffer, which would fail once more at the end of the process
            stream.flush()
            os.write(stream.fileno(), text.encode(stream.encoding or "utf-8", "replace"))
        else:
            stream.write(text)
            stream.flush()
    except (OSError, ValueError, AttributeError):
        pass


def is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (OSError, ValueError, AttributeError):
        return False
