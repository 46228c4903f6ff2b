"""The live page in a real browser: it shows what the server does, and loads nothing else."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from coinfer.server.access import Tenant
from coinfer.server.request import InferRequest, InputTensor
from coinfer.server.serving import ServeOptions
from ensembles.pipelines import MODELS, described, picture
from report.browser import browser
from server.servers import address, echo, serving

_SHOWN = "document.querySelectorAll('#models tbody tr').length"
_CELLS = "[...document.querySelectorAll('#models tbody td')].map(cell => cell.textContent)"

_ROWS = (
    "[...document.querySelectorAll('#{} tbody tr')].map("
    "row => [...row.cells].map(cell => cell.textContent))"
)


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


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_page_asks_for_a_token_and_shows_tenants_and_ensembles(tmp_path: Path) -> None:
    tokens = ["a" * 16, "b" * 16]
    tenants = [Tenant("team-a", tokens[0], 1.0, weight=3.0), Tenant("team-b", tokens[1])]
    options, ensemble = ServeOptions(http=0, tenants=tenants), described(tmp_path)
    image = InputTensor("image", "FP32", picture(1, 2)["image"])
    with (
        serving(MODELS, options=options, ensembles=[ensemble]) as server,
        browser(tmp_path / "browser") as page,
    ):
        url = f"http://{address(server)}"
        server.service.infer(InferRequest("faces", [image]), tenant="team-a").response(20)
        crop = {"name": "crop", "datatype": "FP32", "shape": [1, 1, 8, 8]}
        crop["data"] = np.zeros(64).tolist()
        body = json.dumps({"inputs": [crop]}).encode()
        ask = urllib.request.Request(f"{url}/v2/models/classifier/infer", body)
        ask.add_header("Authorization", f"Bearer {tokens[0]}")
        for _ in range(2):
            with suppress(urllib.error.HTTPError):  # the second: it comes too soon after the first
                urllib.request.urlopen(ask, timeout=10).close()
        page.open(f"{url}/", ready="document.getElementById('asked').style.display == 'block'")
        assert page.ask(_SHOWN) == 0
        page.complaints()  # Chromium logs the 401
        page.ask("document.getElementById('token').value = arguments[0]", tokens[1])
        page.ask("document.getElementById('asked').requestSubmit()")
        page.wait(_SHOWN)
        rows = page.ask(_ROWS.format("tenants"))
        assert [row[:3] for row in rows] == [["team-a", "3", "1"], ["team-b", "1", "any number"]]
        assert rows[0][5:9] == ["0", "2", "1", "0"]  # waiting, taken, too often, refused
        assert rows[0][9] != "–"
        [faces] = [row for row in page.ask(_ROWS.format("models")) if row[0] == "faces (ensemble)"]
        assert faces[4:6] == ["0", "0"]
        assert float(faces[6]) > 0
        assert faces[8:13] == ["1", "0", "0", "0", "0"]
        assert page.complaints() == []
