"""Fails where a comment in the Rust sources is wider than 100 columns; strings and code go up to rustfmt's width.

    python scripts/check_comments.py
"""

import pathlib
import sys

WIDTH = 100

wide = 0
for path in sorted(pathlib.Path("crates").rglob("*.rs")):
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("//") and len(line) > WIDTH:
            print(f"{path}:{number}: a comment of {len(line)} columns; need at most {WIDTH}")
            wide += 1
sys.exit(wide > 0)
