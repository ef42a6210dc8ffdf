"""What people look at first: a contact sheet of the predictions, the most confident mistakes, the least certain inputs.

In: picks, and how their inputs are read. Out, under output/overview/: predictions.jpg, mistakes/ and least-certain/.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import structlog

from rfuav_trainer.errors import UnreadableFileError, naming
from rfuav_trainer.evaluation import sheet
from rfuav_trainer.evaluation.picks import MOST_PICKS, inputs_of
from rfuav_trainer.inference.drawing import draw_image, draw_picture
from rfuav_trainer.storage import outputs
from rfuav_trainer.storage.files import atomic_writer, fitting

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from rfuav_trainer.data.images import Room
    from rfuav_trainer.data.samples import Key, Reader, Sample
    from rfuav_trainer.evaluation.picks import Pick, Picks

log = structlog.get_logger()

FOLDER = "overview"
MOST_BYTES = 2**26
"""Of the pictures that are kept; others are read again."""
SHEET, MISTAKES, UNCERTAIN = "predictions.jpg", "mistakes", "least-certain"


class Seen:
    """The pictures of picks as the network saw them, so that they need not be read again. A home of a `Reader`.

    Args:
        picks: those that count.
        root: the folder of the inputs.
    """

    def __init__(self, picks: Picks, root: Path) -> None:
        self._picks, self._root = picks, root
        self._pictures: dict[Key, Tensor] = {}

    def holds(self, key: Key) -> bool:
        """Whether the picture is stored."""
        return key in self._pictures

    def get(self, key: Key) -> Tensor | None:
        """The stored picture, which must not be changed."""
        return self._pictures.get(key)

    def put(self, key: Key, picture: Tensor) -> bool:
        """Store nothing that is read again: several threads do so, and each only once."""
        del key, picture
        return False

    def keep(self, key: Key, picture: Tensor) -> bool:
        """Store a picture, and forget those that are picks no more; False if there is no space."""
        most = min(2 * MOST_PICKS, MOST_BYTES // picture.nbytes)
        if len(self._pictures) >= most:
            chosen = {(self._root / name, frame) for name, frame in self._picks.all()}
            self._pictures = {key: one for key, one in self._pictures.items() if key in chosen}
        if len(self._pictures) >= most:
            return False
        self._pictures[key] = picture.clone()  # a view would keep its whole batch
        return True


def write(folder: Path, picks: Picks, root: Path, reader: Reader, *, room: Room, workers: int) -> None:
    """Write the contact sheet and the pictures.

    Args:
        folder: for them; pictures of an earlier run are replaced.
        picks: what is drawn.
        root: the folder of the inputs.
        reader: reads them as the network saw them.
        room: memory for decoding images in full.
        workers: threads that draw.
    """
    spectrogram = reader.preprocessing.spectrogram
    shown = inputs_of(picks.shown, root, spectrogram)
    found = sheet.of_samples({sample: pick.words for pick, sample in shown}, reader)
    if found is not None:
        with atomic_writer(folder / SHEET) as stream:
            stream.write(found)
    with ThreadPoolExecutor(workers, thread_name_prefix="drawer") as pool:
        for name, some in ((MISTAKES, picks.mistakes), (UNCERTAIN, picks.uncertain)):
            chosen = list(inputs_of(some, root, spectrogram))
            files = [_file(folder / name, number, sample) for number, (_, sample) in enumerate(chosen, 1)]
            for path in outputs.found(folder / name, "[0-9][0-9]-*.jpg"):
                if path not in files:
                    outputs.remove(path)
            deque(pool.map(partial(_draw, reader=reader, room=room), files, chosen), maxlen=0)


def _file(folder: Path, number: int, sample: Sample) -> Path:
    """The file of a picture; files sort by their numbers."""
    frame = "" if sample.frame is None else f"-frame{sample.frame}"
    return folder / fitting(f"{number:02}-{sample.name.replace('/', '_')}{frame}", ".jpg")


def _draw(path: Path, chosen: tuple[Pick, Sample], *, reader: Reader, room: Room) -> None:
    pick, sample = chosen
    text = ", ".join(pick.words)
    try:
        if sample.frame is None:
            naming(sample.name, lambda: draw_image(path, sample.path, text, room))
        else:
            draw_picture(path, naming(sample.name, lambda: reader.read(sample)), text)
    except UnreadableFileError as error:  # removed since it was classified, or too large in full
        log.warning("not drawing a picture", file=sample.name, problem=str(error))
