"""The way into all benchmarks.

python benchmarks                       what there is
python benchmarks speed --help          one of them; what follows its name is handed on
"""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def benchmarks() -> dict[str, str]:
    """Those that can be run, by name, with the first line of what each says of itself."""
    found = {}
    for path in sorted(FOLDER.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if path != Path(__file__) and 'if __name__ == "__main__":' in text:
            found[path.stem] = (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
    return found


def main() -> None:
    """List them, or run one."""
    known = benchmarks()
    name = sys.argv[1].replace("-", "_") if len(sys.argv) > 1 else ""
    if name in known:
        sys.argv[:2] = [str(FOLDER / f"{name}.py")]
        sys.path.insert(0, str(FOLDER))
        runpy.run_path(sys.argv[0], run_name="__main__")
        return
    print(__doc__)
    for key, line in known.items():
        print(f"{key:22}{line}")
    if name not in ("", "__help", "_h"):
        raise SystemExit(f"\nthere is no benchmark {sys.argv[1]}")


if __name__ == "__main__":
    main()
