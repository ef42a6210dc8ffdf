"""The commands of `rfuav-trainer prepare`: data sets from folders of files.

In: flags. Out: a call of the module `prepare`, which is imported only then.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer

from rfuav_trainer.cli.runner import finish

if TYPE_CHECKING:
    from collections.abc import Callable

    from rfuav_trainer.prepare import Made, Task
    from rfuav_trainer.process.stop import StopSignal
    from rfuav_trainer.reporting.progress import Progress

log = structlog.get_logger()

commands = typer.Typer(
    no_args_is_help=True, help="Prepare data sets from folders of files. The source is never changed."
)

Source = Annotated[Path, typer.Argument(help="Folder with one folder for each class.")]
Output = Annotated[Path, typer.Argument(help="Folder to create.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same files.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that an earlier prepare wrote.")]


@commands.command("split")
def prepare_split(
    source: Source,
    output: Output,
    *,
    validation: Annotated[float, typer.Option(help="Fraction of every class that goes to val/.")] = 0.2,
    test: Annotated[float, typer.Option(help="Fraction of every class that goes to test/; 0: no such folder.")] = 0.0,
    validation_folder: Annotated[str, typer.Option(help="Another name for val/.")] = "val",
    recordings: Annotated[
        str | None,
        typer.Option(help="Regular expression that finds the recording of a path, as dataset.recordingPattern does."),
    ] = None,
    seed: Seed = 0,
    link: Annotated[bool, typer.Option("--link", help="Create hard links instead of copies.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Split into train/, val/ and perhaps test/. Recordings stay whole; every part gets every class and SNR."""
    _prepare(
        source,
        output,
        overwrite,
        lambda preparation, task: preparation.split(
            task,
            fraction=validation,
            seed=seed,
            link=link,
            pattern=recordings,
            test=test,
            validation_folder=validation_folder,
        ),
    )


@commands.command("augment")
def prepare_augment(
    source: Source,
    output: Output,
    *,
    change: Annotated[
        list[str],
        typer.Option(help="An augmentation of pictures, as in training.augment, other than masks. May be repeated."),
    ],
    copies: Annotated[int, typer.Option(help="Number of augmented copies of each picture.")] = 1,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Write every picture together with augmented copies of it."""
    _prepare(
        source,
        output,
        overwrite,
        lambda preparation, task: preparation.augmented(task, changes=change, copies=copies, seed=seed),
    )


@commands.command("crop")
def prepare_crop(
    source: Annotated[Path, typer.Argument(help="Folder of pictures, or one picture.")],
    output: Output,
    *,
    box: Annotated[str, typer.Option(help="LEFT,TOP,WIDTH,HEIGHT in pixels.")],
    overwrite: Overwrite = False,
) -> None:
    """Crop every picture to a box, for example to remove the axes of a plot."""
    _prepare(
        source, output, overwrite, lambda preparation, task: preparation.cropped(task, box=preparation.read_box(box))
    )


def _prepare(source: Path, output: Path, overwrite: bool, work: Callable[[Any, Task], Made]) -> None:
    """Call `work` with the module `prepare` and its task, and log the result."""

    def run(progress: Progress, stop: StopSignal) -> None:
        from rfuav_trainer import prepare as preparation  # noqa: PLC0415  (seconds to import)

        def report(done: int, total: int, **more: Any) -> None:
            progress.update(
                {
                    "progressPercentage": 100 * done // max(1, total),
                    "rfuav": {"processed": done, "total": total, **more},
                }
            )

        made = work(preparation, preparation.Task(source, output, overwrite, stop, report=report))
        unreadable = len(made.unreadable)
        total = sum(made.parts.values()) or made.files + unreadable
        report(total, total, files=made.files, failed=unreadable, parts=made.parts)
        log.info("prepared", output=str(output), files=made.files, unreadable=unreadable, **made.parts)

    finish(run)
