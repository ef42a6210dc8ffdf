"""Which pictures an inference leaves: an overview by default, each input with `all`, nothing with `none`."""

import json
import threading
import time

import pytest
import torch
from PIL import Image
from trainer.runs import Watcher, run
from trainer.trainer_kit import inference_spec

from rfuav_trainer.errors import StoppedError, UnreadableFileError
from rfuav_trainer.evaluation import picks
from rfuav_trainer.inference import annotate, overview
from rfuav_trainer.inference.drawing import draw_image
from rfuav_trainer.process.stop import StopSignal
from rfuav_trainer.signals import recording

LINES = [
    {"path": f"{'ab'[number % 2]}/{number:03}.png", "class": "ab"[number % 3 % 2], "score": (number * 37 % 101) / 101}
    for number in range(500)
]


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def lines(desk):
    return [json.loads(line) for line in (desk / "results/out/predictions-0.jsonl").read_text().splitlines()]


def test_picks_are_some_of_all_the_worst_mistakes_and_the_least_certain():
    chosen = picks.Picks(len(LINES), labelled=True)
    assert list(chosen.watching(LINES)) == LINES
    wrong = sorted((line for line in LINES if line["path"][0] != line["class"]), key=lambda line: -line["score"])
    assert [pick.score for pick in chosen.mistakes] == [line["score"] for line in wrong[:20]]
    assert all(pick.wrong for pick in chosen.mistakes)
    assert [pick.score for pick in chosen.uncertain] == sorted(line["score"] for line in LINES)[:20]
    assert [pick.name for pick in chosen.shown] == [line["path"] for line in LINES[::9]]
    assert len(chosen.shown) <= picks.MOST_SHOWN
    unknown = picks.Picks(len(LINES), labelled=False)
    assert all([unknown.add(line) for line in LINES][:20])
    assert unknown.mistakes == []


def test_what_holds_nothing_is_no_pick():
    chosen = picks.Picks(1, labelled=False)
    assert not chosen.add({"path": "a.png", "dead": "all zero", "class": None, "score": None, "top": []})
    assert chosen.all() == set()


def test_by_default_there_is_an_overview(pictures):
    watcher = Watcher()
    run(pictures, inference_spec(output__annotate="default", evaluation={}), watcher=watcher)
    out = pictures / "results/out"
    assert watcher.last["rfuav"]["outputs"]["overview"] == "pvc://results/out/overview"
    assert "annotated" not in watcher.last["rfuav"]["outputs"]
    assert not (out / "annotated").exists()
    assert names(out / "overview") == ["least-certain", "mistakes", "predictions.jpg"]
    assert Image.open(out / "overview/predictions.jpg").width == 5 * 212 + 12
    found = lines(pictures)
    certain = sorted(found, key=lambda line: line["score"])
    assert names(out / "overview/least-certain") == [
        f"{number:02}-{line['path'].replace('/', '_')}.jpg" for number, line in enumerate(certain, 1)
    ]
    wrong = sorted(
        (line for line in found if line["path"].split("/")[0] != line["class"]), key=lambda line: -line["score"]
    )
    assert wrong
    assert names(out / "overview/mistakes") == [
        f"{number:02}-{line['path'].replace('/', '_')}.jpg" for number, line in enumerate(wrong, 1)
    ]
    assert "The most confident mistakes" in (out / "evaluation.html").read_text()


def test_frames_are_not_read_again_for_the_overview(recordings, monkeypatch):
    read, whole = [], recording.read_raw
    monkeypatch.setattr(recording, "read_raw", lambda *given: read.append(given[:2]) or whole(*given))
    run(recordings, inference_spec(output__annotate="default", evaluation={}))
    assert len(read) == len(lines(recordings)) == 18
    out = recordings / "results/out"
    assert not (out / "annotated").exists()
    assert len(names(out / "overview/least-certain")) == 18
    assert all(".iq-frame" in name for name in names(out / "overview/least-certain"))


def test_shards_have_one_overview_of_all(recordings):
    for shard in range(3):
        assert not (recordings / "results/out/overview").exists()
        run(recordings, inference_spec(output__annotate="default", shards=3), shard=shard)
    assert len(names(recordings / "results/out/overview/least-certain")) == 18


def test_none_leaves_no_pictures(pictures):
    watcher = Watcher()
    run(pictures, inference_spec(output__annotate="none"), watcher=watcher)
    assert not {"annotated", "overview"} & {*names(pictures / "results/out")}
    assert not {"annotated", "overview"} & {*watcher.last["rfuav"]["outputs"]}


def test_an_overview_of_an_earlier_run_is_replaced(pictures):
    folder = pictures / "results/out/overview/mistakes"
    folder.mkdir(parents=True)
    for name in ("01-old.png.jpg", "notes.jpg"):
        (folder / name).write_bytes(b"")
    run(pictures, inference_spec(output__annotate="default"))
    assert names(folder) == ["notes.jpg"]


def test_only_so_many_pictures_are_kept(tmp_path, monkeypatch):
    picture = torch.zeros(3, 8, 8, dtype=torch.uint8)
    monkeypatch.setattr(overview, "MOST_BYTES", 4 * picture.nbytes)
    chosen = picks.Picks(10, labelled=False)
    seen, kept = overview.Seen(chosen, tmp_path), []
    for number in range(6):
        chosen.add({"path": f"{number}.png", "class": "a", "score": 0.5})
        kept.append(seen.keep((tmp_path / f"{number}.png", None), picture))
    assert kept == [True] * 4 + [False] * 2


def test_a_picture_that_cannot_be_drawn_is_counted_and_the_rest_goes_on(pictures, monkeypatch):
    def draw(path, source, *more):
        if source.name == "002.png":
            raise UnreadableFileError("gone")
        draw_image(path, source, *more)

    monkeypatch.setattr(annotate, "draw_image", draw)
    mark = run(pictures, inference_spec(output__annotate="all"))
    assert (mark["undrawn"], mark["processed"]) == (3, 15)
    assert len([*(pictures / "results/out/annotated").rglob("*.jpg")]) == 12


def test_an_error_of_the_disk_while_drawing_ends_the_job(pictures, monkeypatch):
    def draw(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(annotate, "draw_image", draw)
    with pytest.raises(OSError, match="No space left") as caught:
        run(pictures, inference_spec(output__annotate="all"))
    assert "while reading alpha/000.png" in caught.value.__notes__


def test_a_stop_does_not_wait_for_a_drawing_that_hangs(pictures, monkeypatch):
    stop, go_on, began = StopSignal(), threading.Event(), time.monotonic()
    monkeypatch.setattr(annotate, "PATIENCE_SECONDS", 0.5)

    def draw(path, source, *more):
        if source.name == "003.png":
            stop.request()
            go_on.wait(60)
        draw_image(path, source, *more)

    with monkeypatch.context() as patch:
        patch.setattr(annotate, "draw_image", draw)
        with pytest.raises(StoppedError, match=r"after \d+ of 15 inputs"):
            run(pictures, inference_spec(batchSize=1, output__annotate="all"), stop=stop)
    assert time.monotonic() - began < 30
    go_on.set()
    run(pictures, inference_spec(batchSize=1, output__annotate="all"))
    assert len(lines(pictures)) == len([*(pictures / "results/out/annotated").rglob("*.jpg")]) == 15
