"""The live page in a real browser: it shows what the server does, and loads nothing else."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from report.browser import browser
from server.servers import address, echo, serving

_SHOWN = "document.querySelectorAll('#models tbody tr').length"
_CELLS = "[...document.querySelectorAll('#models tbody td')].map(cell => cell.textContent)"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_page_shows_models_and_reasons(tmp_path: Path) -> None:
    with serving({"echo": echo("FP32")}) as server, browser(tmp_path) as page:
        url = f"http://{address(server)}"
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
        for parameters in ({}, {"timeout": 1}):
            body = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
            ask = urllib.request.Request(f"{url}/v2/models/echo/infer", body)
            with suppress(urllib.error.HTTPError):  # the second: its deadline passes
                urllib.request.urlopen(ask, timeout=10).close()
        page.open(f"{url}/", ready=_SHOWN)
        cells = page.ask(_CELLS)  # from the ninth: answered, late, dropped, failed, refused
        assert cells[:2] == ["echo", "1"]
        assert cells[8:13] == ["1", "0", "1", "0", "0"]
        assert "deadline" in page.ask("document.getElementById('misses').textContent")
        assert page.ask("document.getElementById('lost').style.display") == "none"
        loaded = page.ask("performance.getEntriesByType('resource').map(entry => entry.name)")
        assert set(loaded) <= {f"{url}/state"}
        assert page.complaints() == []
