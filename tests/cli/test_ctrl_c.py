"""Ctrl-C ends the program with one line and status 130, at whatever moment it comes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.program import TINY

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")

WAIT_S = 120.0

INTERRUPTED = """\
import os, signal, sys

moment, *arguments = sys.argv[1:]


class Moment:
    '''Sends the signal when a module begins to be imported.'''

    def find_spec(self, name, path=None, target=None):
        if name == moment:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
        return None


from coinfer.__main__ import main

sys.meta_path.insert(0, Moment())
sys.argv = ["coinfer", *arguments]
if moment == "exit":
    import atexit

    atexit.register(os.kill, os.getpid(), signal.SIGINT)
main()
"""
"""The program, interrupted at a moment that does not depend on how fast the machine is."""

AT_START = ("coinfer.cli.app", "typer", "rich.console", "coinfer.cli.zoo", "numpy", "pydantic")
AT_WORK = {
    "coinfer.planner.prepare": ["run", "SCENARIO"],
    "coinfer.workload.scenario_file": ["simulate", "SCENARIO"],
    "coinfer.experiments.certificate": ["bound", "SCENARIO"],
    "coinfer.experiments.saturation": ["saturate", "SCENARIO"],
    "coinfer.replay": ["replay", "log"],
    "coinfer.load_test.play": ["load", "SCENARIO", "--url", "http://127.0.0.1:9"],
    "coinfer.profiling": ["profile", "zoo:tiny_mlp"],
    "coinfer.graph.cost": ["inspect", "zoo:tiny_mlp"],
    "onnx_ir": ["inspect", "zoo:tiny_mlp"],
    "onnxruntime": ["doctor"],
    "onnxruntime.capi._pybind_state": ["doctor"],
    "openvino": ["doctor"],
    "coinfer.profiling.support": ["partition", "zoo:tiny_mlp"],
    "coinfer.graph.fusing.apply": ["fuse", "zoo:tiny_mlp", "zoo:tiny_mlp", "-o", "SCENARIO.onnx"],
    "coinfer.planner.make_plan": ["plan", "zoo:tiny_mlp"],
    "scipy.optimize": ["bound", "SCENARIO"],
}


def interrupted(
    moment: str, arguments: list[str], folder: Path
) -> subprocess.CompletedProcess[str]:
    (folder / "scenario.yaml").write_text(TINY)
    return subprocess.run(
        [
            *(sys.executable, "-c", INTERRUPTED, moment),
            *(w.replace("SCENARIO", str(folder / "scenario.yaml")) for w in arguments),
        ],
        env={**os.environ, "COINFER_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


@pytest.mark.parametrize("moment", AT_START)
def test_while_it_is_imported(moment: str, tmp_path: Path) -> None:
    done = interrupted(moment, ["doctor"], tmp_path)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "coinfer: interrupted\n"


@pytest.mark.parametrize("moment", AT_WORK)
def test_while_a_verb_imports_what_it_needs(moment: str, tmp_path: Path) -> None:
    done = interrupted(moment, AT_WORK[moment], tmp_path)
    assert (done.returncode, done.stderr) == (130, "coinfer: interrupted\n")


def test_while_the_interpreter_ends_what_was_done_stays(tmp_path: Path) -> None:
    done = interrupted("exit", ["--version"], tmp_path)
    assert (done.returncode, done.stderr) == (130, "coinfer: interrupted\n")
    assert done.stdout.startswith("coinfer ")


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    program = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + INTERRUPTED
    done = subprocess.run(
        [sys.executable, "-c", program, "coinfer.cli.app", "--version"],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
