"""A headless Chromium for tests; skips them where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")

_QUIET = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
)

_WAIT_S = 60.0


class Browser:
    """Opens pages and answers questions about them."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def open(
        self, page: Path | str, *, ready: str = "document.documentElement.dataset.charts"
    ) -> None:
        """Open a report, or an address, and wait until its script has drawn all charts."""
        self.complaints()  # those of the page before
        self._driver.get(page if isinstance(page, str) else page.as_uri())
        self.wait(ready)

    def wait(self, ready: str) -> None:
        """Wait until an expression is true in the page."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self._driver, _WAIT_S, poll_frequency=0.05).until(
            lambda _: self.ask(ready), message=f"the page was not ready: {ready}"
        )

    def ask(self, expression: str, *arguments: Any) -> Any:
        """Evaluate an expression in the page; it may use `arguments`."""
        return self._driver.execute_script(f"return {expression}", *arguments)

    def complaints(self) -> list[str]:
        """What the page has logged on the console since the last question; any level."""
        return [entry["message"] for entry in self._driver.get_log("browser")]


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start Chromium with an empty profile; skip the test where it is not installed."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    steering = shutil.which("chromedriver")
    if program is None or steering is None:
        pytest.skip("no Chromium with chromedriver; Debian: apt install chromium chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = program
    for argument in (*_QUIET, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # it does not start as root with one
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = selenium.ChromeService(executable_path=steering)
    driver = selenium.Chrome(options=options, service=service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
