"""Damaged files end in a clean error or in success, whatever the command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.corpus import CORPUS, FOLDER

TESTS = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="limits memory as Linux does"
)


def test_damaged_files_of_every_kind_make_no_program_fall(tmp_path: Path) -> None:
    # A process of its own: the campaign forks, which this one cannot with its threads.
    arguments = ["--cases", "60", "--seed", "1", "--workers", "2", "--out", str(tmp_path / "fell")]
    paths = os.pathsep.join([str(TESTS), *(path for path in sys.path if path)])
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.campaign", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(tmp_path)},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [total] = [line.split() for line in done.stdout.splitlines() if line.startswith("all ")]
    assert int(total[1]) == 60 + len(CORPUS)
    assert int(total[2]) > 6, "mutations are so heavy that hardly anything is read to its end"


def test_every_case_of_the_corpus_is_listed_and_every_one_listed_is_there() -> None:
    assert set(CORPUS) == {path.name for path in FOLDER.iterdir() if path.is_dir()}
