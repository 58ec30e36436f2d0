#!/usr/bin/env python3
"""Holds src/ to what its rooms declare (room(... USES ...) in CMakeLists.txt).

A file includes only its own room and those that the room uses, directly or by others; its namespace is its folder (src/base is plain
`deepseek`); it stays under 1000 lines (a warning from 600 on); and nothing above `runtime` includes a backend, whether in src, apps or
python, but where one is registered. Numbers are read and written without regard to the locale, so C's functions for it are refused.
Usage: tools/check_layers.py [root]. Test: tests/python/test_house.py
"""

import pathlib
import re
import sys

WARN_LINES, MAX_LINES = 600, 1000
SOURCE = {".cc", ".h"}
# Files outside of backends/ that may name a backend: those that register it.
MAY_INCLUDE_BACKENDS = {
    "apps/deepseek.cc",
    "apps/deepseek_tune.cc",
    "python/core.cc",
}
# In another locale "0.5" is 0 to these, or a half is "0,5" (base/strings.h: parse_number; fmt).
LOCAL = re.compile(r"(?<![\w.:>])(?:std::)?(sto[dfil]+|stold|strto[dfl]+|strtold|ato[fil]|[fvs]?n?printf|scanf|sscanf|localeconv|setlocale)\s*\(")


def rooms_of(root):
    """Rooms in the order of their declaration, each with all that it may include."""
    text = re.sub(r"#.*", "", (root / "CMakeLists.txt").read_text())
    rooms = {}
    for name, used in re.findall(r"^room\(\s*([\w/]+)(?:\s+LIBRARY\s+\w+(?:\s+ONLY(?:\s+(?!USES)\w+)+)?)?(?:\s+USES\s+([^)]*))?\)", text, re.MULTILINE):
        reached = set()
        for room in used.split():
            if room not in rooms:
                sys.exit(f"CMakeLists.txt: room({name} USES {room}): {room} is not declared before it")
            reached |= {room} | rooms[room]
        rooms[name] = reached
    if not rooms:
        sys.exit("CMakeLists.txt: expected room(NAME USES ...) for each folder of src")
    return rooms


def room_of(path, rooms):
    """The room that a path under src/ lies in; the longest name wins, since rooms may nest."""
    inside = [room for room in rooms if path.startswith(room + "/")]
    return max(inside, key=len, default=None)


def check_file(name, text, rooms):
    """Errors and warnings of one file; `name` is its path under src/."""
    errors, warnings = [], []
    room = room_of(name, rooms)
    if room is None:
        return [f"src/{name}: not in a room ({' '.join(rooms)}); declare its folder in CMakeLists.txt"], warnings
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        include = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if not include:
            continue
        other = room_of(include.group(1), rooms)
        where = f"src/{name}:{number}"
        if other is None:
            errors.append(f'{where}: "{include.group(1)}" is not in a room; write the path from src/, or <...> if not ours')
        elif other != room and other not in rooms[room] and not (other.startswith("backends/") and f"src/{name}" in MAY_INCLUDE_BACKENDS):
            errors.append(f"{where}: {room} includes {other}, which it does not use; move the code or the need for it, or declare it in CMakeLists.txt")
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


def check_numbers(name, lines):
    return [f"{name}:{number}: {match.group(1)}() depends on the locale; use parse_number() of base/strings.h, std::from_chars or fmt"
            for number, line in enumerate(lines, 1) if (match := LOCAL.search(re.sub(r"//.*|\"(?:[^\"\\\\]|\\\\.)*\"", "", line)))]


def check_outside(root, path):
    """Errors of a file of apps or python: backends are for those that register them."""
    name = path.relative_to(root).as_posix()
    lines = path.read_text().splitlines()
    errors = check_numbers(name, lines)
    for number, line in enumerate(lines, 1):
        if re.match(r'\s*#\s*include\s+"backends/', line) and name not in MAY_INCLUDE_BACKENDS:
            errors.append(f"{name}:{number}: includes a backend; ask runtime's registry for one by name")
    return errors


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
    rooms = rooms_of(root)
    files = sorted(path for path in (root / "src").rglob("*") if path.suffix in SOURCE)
    if not files:
        sys.exit(f"{root / 'src'}: no sources found; is this the project's root?")
    failed = 0
    for path in files:
        errors, warnings = check_file(path.relative_to(root / "src").as_posix(), path.read_text(), rooms)
        errors += check_numbers(path.relative_to(root).as_posix(), path.read_text().splitlines())
        failed += len(errors)
        for message in errors:
            print(f"error: {message}")
        for message in warnings:
            print(f"warning: {message}")
    for path in sorted(path for folder in ("apps", "python") for path in (root / folder).glob("*") if path.suffix in SOURCE):
        for message in check_outside(root, path):
            failed += 1
            print(f"error: {message}")
    for name in sorted(MAY_INCLUDE_BACKENDS):
        if (root / name).exists() and '#include "backends/' not in (root / name).read_text():
            print(f"warning: {name} includes no backend any more; take it from MAY_INCLUDE_BACKENDS")
    print(f"check_layers: {len(files)} files, {failed} errors")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
