"""Every test gets state and cache folders of its own: it can neither see nor harm a cluster of the person who runs it."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest


@pytest.fixture
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def another_users() -> Iterator[tuple[Path, Callable[[], AbstractContextManager[None]]]]:
    """A folder of root's, and a context in which this process is not root: what `sudo` leaves for the user."""
    with tempfile.TemporaryDirectory() as folder:  # not below tmp_path, which nobody else may even look into
        path = Path(folder)
        path.chmod(0o555)

        @contextmanager
        def as_user() -> Iterator[None]:
            root = os.geteuid() == 0
            if root:
                os.seteuid(65534)
            try:
                yield
            finally:
                if root:
                    os.seteuid(0)

        yield path, as_user
        path.chmod(0o755)


@pytest.fixture
def script() -> Callable[[Path, str, str], Path]:
    """Makes executables of the test's own, to stand in PATH."""

    def make(folder: Path, name: str, body: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return make
