"""What the documentation tells people to type beside a server works beside one."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
pytest.importorskip("grpc", reason="the extra `server` is not installed")

from docs.pages import PAGES, ROOT, blocks, commands
from docs.test_commands import NEEDS_SERVER, Workplace, workplace

__all__ = ["workplace"]

_SERVED = "coinfer serve examples/camera-rates.yaml"
_WAIT_S = 120


@dataclass(frozen=True, slots=True)
class _Served:
    """A server that the commands of the pages can be typed beside: on other ports."""

    places: Mapping[str, str]

    def command(self, command: str) -> list[str]:
        for shown, place in self.places.items():
            command = command.replace(shown, place)
        return command.split()


@pytest.fixture(scope="module")
def beside(workplace: Workplace) -> Iterator[_Served]:
    with _serving(_SERVED, workplace) as served:
        yield served


@contextmanager
def _serving(command: str, workplace: Workplace) -> Iterator[_Served]:
    """Type a command that serves, with ports that are free."""
    ports = ["--http", "0", "--grpc", "0", "--metrics", "-1"]
    program = subprocess.Popen(
        [*command.split(), *ports],
        cwd=workplace.folder,
        env=workplace.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    timer = threading.Timer(_WAIT_S, program.kill)
    timer.start()
    assert program.stderr is not None
    said = ""
    for said in program.stderr:
        if " at http://" in said:
            break
    timer.cancel()
    found = re.search(r"at http://(\S+:\d+), (\S+:\d+)", said)
    try:
        assert found is not None, said
        yield _Served({"127.0.0.1:8000": found[1], "127.0.0.1:8001": found[2]})
    finally:
        program.send_signal(signal.SIGTERM)
        program.communicate(timeout=60)
    assert program.returncode == 0


def test_the_server_that_they_are_typed_beside_is_shown() -> None:
    assert _SERVED in {command for page in PAGES for command in commands(page)}


@pytest.mark.parametrize("command", NEEDS_SERVER)
def test_a_command_beside_a_server_ends_with_status_0(
    command: str, beside: _Served, workplace: Workplace
) -> None:
    words = beside.command(command)
    if words[:2] == ["coinfer", "load"] and "--duration" not in words:
        words += ["--duration", "0.5s"]
    done = workplace.run(words)
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("serving.md", "coinfer zoo export", "(1, 10)\n"),
        ("ensembles.md", "python examples/ensemble", "[[32, 64]] (1, 10)\n"),
    ],
)
def test_the_first_steps_with_a_server_work(
    name: str, make: str, said: str, workplace: Workplace
) -> None:
    page = ROOT / "docs" / name
    made = next(command for command in commands(page) if command.startswith(make))
    serve = next(command for command in commands(page) if command.startswith("coinfer serve"))
    assert workplace.run(made.split()).returncode == 0
    with _serving(serve, workplace) as served:
        for block in blocks(page, "py"):
            if "tritonclient" not in block.text:
                continue
            text = block.text
            for shown, place in served.places.items():
                text = text.replace(shown, place)
            done = workplace.run([sys.executable, "-c", text])
            assert done.returncode == 0, done.stderr
            assert done.stdout == said


def test_servers_that_tell_of_requests_start_as_shown(workplace: Workplace) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")
    page = ROOT / "docs" / "serving.md"
    make, serve, *further = (c for c in commands(page) if c.startswith("coinfer "))
    shown = [c for c in further if c.startswith(serve)]
    assert {option for c in shown for option in c.split() if option.startswith("--")} == {
        "--access-log",
        "--log-format",
        "--otlp",
    }
    assert workplace.run(make.split()).returncode == 0
    for command in shown:
        with _serving(command, workplace):
            pass
