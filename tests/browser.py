"""A headless Chromium, for tests of HTML pages."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")  # while it runs, no other event loop can
def browser() -> "Iterator[Browser]":
    """A headless Chromium; the test is skipped if there is none."""
    reason = "playwright is not installed (the extra [dev])"
    api = pytest.importorskip("playwright.sync_api", reason=reason)
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium on the PATH (Debian: apt install chromium)")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextlib.contextmanager
def open_page(
    browser: "Browser", path: Path, width: int = 1400, dark: bool = False, touch: bool = False
) -> "Iterator[Page]":
    """Open a file in a window with a width in pixels. At the end of the block, the page must not
    have logged an error or warning, thrown an exception, or requested anything from a host."""
    page = browser.new_page(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        has_touch=touch,
    )
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    page.on(
        "request",
        lambda r: wrong.append(f"asks for {r.url}") if r.url.startswith(("http", "ws")) else None,
    )
    page.goto(path.resolve().as_uri())
    yield page
    page.wait_for_timeout(50)  # for pending requests and messages
    page.close()
    assert wrong == [], wrong
