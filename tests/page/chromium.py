"""Debian's Chromium. Where it is missing a test is skipped, and in continuous integration it fails."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

_PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    if _PROGRAM is None:
        missing = "the tests of the page need Chromium (apt install chromium)"
        if os.environ.get("RFUAV_CHROMIUM") == "required":
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=_PROGRAM, args=["--no-sandbox"])
        yield found
        found.close()
