#!/usr/bin/env python3
"""Writes the manifest of a rock, a Lua table of MD5 sums by path, for the files whose paths stand on standard input."""

import hashlib
import pathlib
import sys

tree = {}
for path in sys.stdin.read().splitlines():
    *folders, name = path.split("/")
    place = tree
    for folder in folders:
        place = place.setdefault(folder, {})
    place[name] = hashlib.md5(pathlib.Path(path).read_bytes()).hexdigest()


def lua(table, indent):
    lines = []
    for key, value in sorted(table.items()):
        text = f'"{value}"' if isinstance(value, str) else lua(value, indent + "   ")
        lines.append(f'{indent}   ["{key}"] = {text}')
    return "{\n" + ",\n".join(lines) + "\n" + indent + "}"


print("rock_manifest = " + lua(tree, ""))
