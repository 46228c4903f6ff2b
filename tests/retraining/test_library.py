"""Where torch is missing, one line says how to get it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from coinfer.errors import ConfigurationError
from coinfer.retraining.library import the_exporter, torch


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, coinfer.retraining; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(("name", "get"), [("torch", torch), ("onnxscript", the_exporter)])
def test_what_is_missing_is_said_with_its_remedy(
    name: str, get: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigurationError, match=r"pip install 'coinfer\[torch\]'"):
        get()  # type: ignore[operator]
