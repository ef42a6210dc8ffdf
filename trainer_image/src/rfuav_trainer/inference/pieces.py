"""Growing files in a store: objects cannot be appended to, so every commit adds an object with the new bytes.

In: growing files and their committed sizes. Out: hidden objects, which the state of the shard lists; concatenated, they
restore the files when a shard resumes. On a disk the files themselves remain, and this module does nothing.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from rfuav_trainer.storage import outputs
from rfuav_trainer.storage.files import atomic_writer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Pieces:
    """The pieces of one shard's growing files.

    Args:
        paths: the files, by kind.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths
        self.remote = any(outputs.is_remote(path) for path in paths.values())
        self.names: dict[str, list[str]] = {kind: [] for kind in paths}
        """The required pieces, in order."""
        self._sent = dict.fromkeys(paths, 0)

    def restore(self, names: Mapping[str, list[str]]) -> bool:
        """Restore the files from the pieces `names`; False if one is missing."""
        if not self.remote:
            return True
        try:
            for kind, path in self._paths.items():
                with path.open("wb") as stream:
                    for name in names[kind]:
                        with outputs.reading(path.with_name(name)) as here, here.open("rb") as piece:
                            shutil.copyfileobj(piece, stream)
                    self._sent[kind] = stream.tell()
        except (FileNotFoundError, KeyError):
            return False
        self.names = {kind: list(names[kind]) for kind in self._paths}
        return True

    def add(self, sizes: Mapping[str, int]) -> list[Path]:
        """Upload the new bytes of the files, up to `sizes`. Returns the obsolete pieces of restarted files."""
        gone: list[Path] = []
        for kind, path in self._paths.items() if self.remote else ():
            start, end = self._sent[kind], sizes[kind]
            if end < start:
                gone += [path.with_name(name) for name in self.names[kind]]
                self.names[kind], start = [], 0
            if end > start:
                piece = path.with_name(f"{path.name}.{start:015d}-{end:015d}")
                with path.open("rb") as source, atomic_writer(piece) as target:
                    source.seek(start)
                    target.write(source.read(end - start))
                self.names[kind].append(piece.name)
            self._sent[kind] = end
        return gone

    def clear(self) -> None:
        """Remove all pieces, including those that no state lists."""
        for path in self._paths.values() if self.remote else ():
            for piece in outputs.found(path.parent, f"{path.name}.*-*"):
                outputs.remove(piece)
        self.names = {kind: [] for kind in self._paths}
        self._sent = dict.fromkeys(self._paths, 0)
