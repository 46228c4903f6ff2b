"""Re-run the commands whose outputs the docs show, and put the new outputs in place.

A place is an HTML comment `<!-- output: COMMAND -->` followed by a block of text. The command runs
in a shell in the root of the repository; what it writes to standard output replaces the block.
Arguments choose pages: `python docs/refresh.py docs/policies.md`; none means all pages. Run it on a
machine that does nothing else: most outputs are timings.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = re.compile(
    r"(<!-- output: (?P<command>.+?) -->\n```text\n)(?P<old>.*?)(^```$)", re.M | re.S
)
COLUMNS = "112"


def main(names: list[str]) -> int:
    """Refresh pages; return 1 if a command failed or printed nothing."""
    pages = [Path(name) for name in names] or [
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
    ]
    outputs: dict[str, str] = {}
    for page in pages:
        text = page.read_text()
        fresh = PLACE.sub(lambda place: _refreshed(place, outputs), text)
        if fresh != text:
            page.write_text(fresh)
    return 0 if all(outputs.values()) else 1


def _refreshed(place: re.Match[str], outputs: dict[str, str]) -> str:
    command = place["command"]
    if command not in outputs:
        sys.stderr.write(f"{command}\n")
        outputs[command] = _output(command)
    return place[1] + (outputs[command] or place["old"]) + place[4]


def _output(command: str) -> str:
    """Run a command with the programs of this Python's environment first; return its lines."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        command,
        shell=True,
        cwd=ROOT,
        env={**os.environ, "PATH": path, "COLUMNS": COLUMNS},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(f"  exit status {done.returncode}: the old output stays\n")
        return ""
    lines = [line.rstrip() for line in done.stdout.replace(f"{ROOT}/", "").splitlines()]
    return "".join(f"{line}\n" for line in lines).strip("\n") + "\n" if any(lines) else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
