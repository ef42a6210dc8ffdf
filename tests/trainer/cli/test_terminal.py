"""Ctrl-C at a real terminal: the training saves and says with which command it goes on; a second one ends it at once."""

import fcntl
import os
import pty
import re
import select
import shlex
import struct
import sys
import termios
import time
from pathlib import Path

import pytest
from torch import nn
from trainer.trainer_kit import CONTEXT, image_set, training_spec

from rfuav_trainer.cli import main

CTRL_C = b"\x03"
COLUMNS = 100
NOTICE = "stopping after this step; Ctrl-C again stops at once"


class Terminal:
    """A command that runs at a terminal of its own, as its foreground process."""

    def __init__(self, *arguments, folder):
        self._master, slave = pty.openpty()
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
        self.process = CONTEXT.Process(target=at_terminal, args=(os.ttyname(slave), arguments, str(folder)))
        self.process.start()
        self._seen, self._slave = b"", slave

    @property
    def text(self):
        """What was written, without colours and movements of the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._seen.decode(errors="replace")).replace("\r", "")

    def press(self, key):
        os.write(self._master, key)

    def _read(self, seconds=0.2):
        """Take what comes, for so long: a quick training writes without a pause."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and select.select([self._master], [], [], 0.1)[0]:
            self._seen += os.read(self._master, 65536)

    def until(self, wanted, seconds=120):
        """Wait for a text, or for a condition."""
        end = time.monotonic() + seconds
        while not (wanted() if callable(wanted) else wanted in self.text):
            assert self.process.is_alive(), self.text
            assert time.monotonic() < end, self.text
            self._read()

    def end(self, seconds=60):
        """The exit code."""
        end = time.monotonic() + seconds
        while self.process.is_alive():
            assert time.monotonic() < end, self.text
            self._read()
        self._read(seconds=5)  # what is left
        return self.process.exitcode

    def close(self):
        self.process.kill()
        self.process.join()
        os.close(self._master)
        os.close(self._slave)


def at_terminal(name, arguments, folder):
    """In a process of its own: the command line, with this terminal as the controlling one."""
    os.setsid()
    handle = os.open(name, os.O_RDWR)  # the first one that the leader of a session opens controls it
    for number in range(3):
        os.dup2(handle, number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    os.chdir(folder)
    os.environ["TERM"] = "xterm"
    sys.argv = ["rfuav-trainer", *arguments]
    main.main()


@pytest.fixture
def started():
    """Starts commands, and ends those that a failed test leaves."""
    found = []

    def start(*arguments, folder):
        found.append(Terminal(*arguments, folder=folder))
        return found[-1]

    yield start
    for terminal in found:
        terminal.close()


def said(terminal):
    """The command after "To go on:", to be pasted."""
    found = re.search(r"To go on: (.*)", terminal.text)
    assert found, terminal.text
    return shlex.split(found[1])


def of_a_file(desk):
    path = desk.write_job("TrainingJob", training_spec(training__epochs=2000, training__workers=0))
    return ["train", "-f", str(path), *(f"--mount={claim}={folder}" for claim, folder in desk.mounts.items())]


def of_a_folder(desk):
    changes = ["training.batchSize=4", "training.workers=0"]
    return ["quick", "train", str(desk / "captures/train"), "--arch", "mobilenet_v3_small", "--size", "64",
            "--epochs", "2000", *(part for change in changes for part in ("--set", change))]  # fmt: skip


@pytest.mark.parametrize("command", [of_a_file, of_a_folder])
def test_ctrl_c_saves_and_one_command_goes_on(desk, started, command):
    image_set(desk / "captures/train")
    terminal = started(*command(desk), folder=desk.root)
    output = desk / ("models/out" if command is of_a_file else "runs/train")
    terminal.until((output / "history.jsonl").exists)
    terminal.press(CTRL_C)
    terminal.until(NOTICE)
    assert terminal.end() == 130
    assert re.search(r"stopped by Ctrl-C; checkpoint at epoch \d+, step \d+", terminal.text.replace("\n", " "))
    assert list(output.glob("checkpoints/*/step-*.json"))
    assert "Traceback" not in terminal.text
    program, *arguments = said(terminal)
    assert program == "rfuav-trainer"
    again = started(*arguments, folder=desk.root)
    again.until("resumed")
    again.press(CTRL_C)
    assert again.end() == 130


class Sleepy(nn.Module):
    """A network whose pass takes a minute once there is a file `slow` in the current folder."""

    def __init__(self, classes):
        super().__init__()
        self.last = nn.Linear(3, classes)

    def forward(self, pictures):
        if Path("slow").exists():
            Path("asleep").touch()
            time.sleep(60)
        return self.last(pictures.mean(dim=(2, 3)))


def sleepy(classes, _size):
    return Sleepy(classes)


def test_a_second_ctrl_c_does_not_wait_for_the_step(desk, started):
    image_set(desk / "captures/train")
    changes = ["model.architecture=custom", f"model.custom={__name__}:sleepy"]
    settings = [part for change in changes for part in ("--set", change)]
    terminal = started(*of_a_file(desk), *settings, folder=desk.root)
    terminal.until((desk / "models/out/history.jsonl").exists)
    (desk / "slow").touch()
    terminal.until((desk / "asleep").exists)
    terminal.press(CTRL_C)
    terminal.until(NOTICE)
    began = time.monotonic()
    terminal.press(CTRL_C)
    assert terminal.end() == 130
    assert time.monotonic() - began < 30
    assert "interrupted from the keyboard" in terminal.text
    assert "Traceback" not in terminal.text
