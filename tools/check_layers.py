#!/usr/bin/env python3
"""Holds src/ to the order of its rooms (DEEPSEEK_ROOMS in CMakeLists.txt).

A file includes only its own room and rooms before it, its namespace is its folder (src/base is plain `deepseek`), and it
stays under 1000 lines (a warning from 600 on). Usage: tools/check_layers.py [root]. Test: tests/python/test_house.py
"""

import pathlib
import re
import sys

WARN_LINES, MAX_LINES = 600, 1000
SOURCE = {".cc", ".h"}


def rooms_of(root):
    match = re.search(r"set\(DEEPSEEK_ROOMS\s+([^)]*)\)", (root / "CMakeLists.txt").read_text())
    if not match:
        sys.exit("CMakeLists.txt: expected set(DEEPSEEK_ROOMS ...), which names the rooms in order")
    return match.group(1).split()


def room_of(path, rooms):
    """The room that a path under src/ lies in; the longest name wins, since rooms may nest."""
    inside = [room for room in rooms if path.startswith(room + "/")]
    return max(inside, key=len, default=None)


def check_file(name, text, rooms):
    """Errors and warnings of one file; `name` is its path under src/."""
    errors, warnings = [], []
    room = room_of(name, rooms)
    if room is None:
        return [f"src/{name}: not in a room of DEEPSEEK_ROOMS ({' '.join(rooms)}); add its folder to the list"], warnings
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        include = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if not include:
            continue
        other = room_of(include.group(1), rooms)
        where = f"src/{name}:{number}"
        if other is None:
            errors.append(f'{where}: "{include.group(1)}" is not in a room; write the path from src/, or <...> if not ours')
        elif rooms.index(other) > rooms.index(room):
            errors.append(f"{where}: {room} includes {other}, which stands after it; move the code, or the need for it")
    expected = "deepseek" if room == "base" else "deepseek::" + room.replace("/", "::")
    allowed = re.compile(re.escape(expected) + r"(::\w+)*$")
    opened = re.findall(r"^(?:inline\s+)?namespace\s+(deepseek[\w:]*)\s*\{", text, re.MULTILINE)
    # A file may reopen another namespace (a specialisation, an overload), but its own must be there.
    if opened and not any(allowed.match(namespace) and namespace != "deepseek::base" for namespace in opened):
        errors.append(f"src/{name}: namespace {opened[0]}, expected {expected} (the folder)")
    if len(lines) > MAX_LINES:
        errors.append(f"src/{name}: {len(lines)} lines, at most {MAX_LINES}; split it by what changes together")
    elif len(lines) > WARN_LINES:
        warnings.append(f"src/{name}: {len(lines)} lines; does it still do one thing?")
    return errors, warnings


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
    rooms = rooms_of(root)
    files = sorted(path for path in (root / "src").rglob("*") if path.suffix in SOURCE)
    if not files:
        sys.exit(f"{root / 'src'}: no sources found; is this the project's root?")
    failed = 0
    for path in files:
        errors, warnings = check_file(path.relative_to(root / "src").as_posix(), path.read_text(), rooms)
        failed += len(errors)
        for message in errors:
            print(f"error: {message}")
        for message in warnings:
            print(f"warning: {message}")
    print(f"check_layers: {len(files)} files, {failed} errors")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
