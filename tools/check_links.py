#!/usr/bin/env python3
"""Checks that every file or folder that a *.md names, in a link or in backticks, exists, and the test that a header names.

In backticks only what looks like a path of ours counts: it starts with a folder of the root, or ends like a file of the
root. A link is taken from its page's folder, a path in backticks from the root or the page's folder. Usage:
tools/check_links.py [root]. Test: tests/python/test_house.py
"""

import pathlib
import re
import subprocess
import sys

PLACEHOLDER = re.compile(r"[*<>{}$|\s]|\.\.\.|…")  # patterns such as tests/<room>/*_test.cc are no paths
BUILT = {"build", "build-asan", "runs", "dist"}  # made by the commands, so absent from a clean tree


def listed_files(root, *patterns):
    listed = subprocess.run(["git", "-C", root, "ls-files", "-co", "--exclude-standard", *patterns], capture_output=True, text=True)
    if listed.returncode != 0:
        sys.exit(f"git ls-files failed in {root}: {listed.stderr.strip()}")
    return [root / name for name in listed.stdout.splitlines() if (root / name).exists()]


def looks_like_path(text, roots):
    if PLACEHOLDER.search(text) or "://" in text:
        return False
    first = text.split("/")[0]
    if "/" in text:
        return first in roots
    return bool(re.fullmatch(r"[A-Z]\w*\.md|Makefile|CMake\w+\.\w+|requirements[\w-]*\.txt", text))


def broken(page, text, root):
    """(line number, name) of what the page names and is not there."""
    roots = {path.name for path in root.iterdir()} | {"src", "tests", "apps", "python", "docs", "examples", "bench", "tools"}
    roots -= BUILT | {".git", ".venv"}
    found, fenced = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            continue
        if fenced:
            continue
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            target = target.split("#")[0]
            if target and not re.match(r"[a-z]+:", target) and not (page.parent / target).exists():
                found.append((number, target))
        for quoted in re.findall(r"`([^`]+)`", line):
            path = re.sub(r":\d+$", "", quoted)
            if looks_like_path(path, roots) and not (root / path).exists() and not (page.parent / path).exists():
                found.append((number, path))
    return found


def missing_tests(root, text):
    """(line number, name) of the tests that a source names and that are not there."""
    return [
        (number, name)
        for number, line in enumerate(text.splitlines(), 1)
        for name in re.findall(r"\btests/[\w/]+\.(?:cc|py)\b", line)
        if not (root / name).exists()
    ]


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()
    pages, sources = listed_files(root, "*.md"), listed_files(root, "src/*.h", "src/*.cc")
    found = [(page, *place) for page in pages for place in broken(page, page.read_text(), root)]
    found += [(source, *place) for source in sources for place in missing_tests(root, source.read_text())]
    for file, number, name in found:
        print(f"error: {file.relative_to(root)}:{number}: {name} does not exist")
    failed = len(found)
    print(f"check_links: {len(pages)} pages, {len(sources)} sources, {failed} errors")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
