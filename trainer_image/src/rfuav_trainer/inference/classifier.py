"""A trained network for inference: weights, classes, and preprocessing.

In: spec.model of an InferenceJob and the kind of its input. Out: a `Classifier` that turns 8-bit pictures into scores.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import structlog
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from rfuav_crds import InferenceJobSpec, Iq, reasons
from rfuav_trainer.data.dataset import as_written, differences, spectrogram_parameters
from rfuav_trainer.errors import InputError, InvalidConfigurationError
from rfuav_trainer.inference import source
from rfuav_trainer.networks import architectures, custom, precision, weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from rfuav_trainer.data.samples import Preprocessing
    from rfuav_trainer.inference.source import Source
    from rfuav_trainer.job import Job
    from rfuav_trainer.signals.spectrogram import SpectrogramParameters

UsualRate: TypeAlias = "Callable[[str], float | None]"
log = structlog.get_logger()


@dataclass(frozen=True)
class Classifier:
    """A network on its device, its classes in output order, its preprocessing, its precision (fp32, bf16, fp16).

    `weights` is its file; `digest` is a SHA-256 of everything that affects a prediction: contents of the weights,
    classes, preprocessing. It does not include the precision, which `auto` may resolve differently on the machines of a
    job.
    """

    weights: Path
    digest: str
    network: nn.Module
    classes: list[str]
    preprocessing: Preprocessing
    device: torch.device
    precision: str

    @torch.inference_mode()
    def scores(self, pictures: Tensor) -> Tensor:
        """Probabilities of the classes: float32 (n, classes) on the CPU, for uint8 pictures (n, 1 or 3, size, size).

        Raises:
            InputError: a score is not finite.
        """
        inputs = self.preprocessing.normalise(pictures.to(self.device))
        with precision.passing(self.precision, self.device):
            guesses: Tensor = self.network(inputs.contiguous(memory_format=torch.channels_last))
        scores = guesses.float().softmax(dim=1).cpu()
        if not scores.isfinite().all():
            half = " or write precision: fp32 (or bf16)," if self.precision == "fp16" else ""
            raise InputError(
                f"the network of {self.weights} gives non-finite scores:{half} use the weights of a training that did "
                "not diverge",
                reason=reasons.WEIGHTS_UNREADABLE,
            )
        return scores


def open_classifier(
    job: Job,
    spec: InferenceJobSpec,
    kind: str,
    device: torch.device,
    found: Source | None = None,
    *,
    usual_rate: UsualRate = lambda _: None,
) -> Classifier:
    """The network of the job, for input of `kind` (image or iq).

    Args:
        job: the job.
        spec: its spec.
        kind: image or iq.
        device: where the network works.
        found: its weights; None: they are read.
        usual_rate: gives the sample rate that most of the recordings state, for a sample format. It is asked if neither
            job nor weights state a rate.

    Raises:
        InputError: the weights file is missing or damaged.
        InvalidConfigurationError: it does not match the job, or lacks metadata.
    """
    found = found or source.read(job, spec)
    card, path = found.card, found.path
    if not found.own_card and kind == "iq":
        spectrogram = _stated(spec.iq or Iq(), usual_rate)
        card = replace(card, preprocessing=replace(card.preprocessing, format=kind, spectrogram=spectrogram))
    preprocessing = _preprocessing(spec, card, kind, usual_rate)
    own = card.architecture == architectures.CUSTOM
    # On the meta device: initialising weights that are replaced anyway takes seconds for the large networks.
    with nullcontext() if own else torch.device("meta"):
        network = architectures.build(
            card.architecture,
            len(card.classes),
            preprocessing.image_size,
            function=spec.model.custom,
            head=card.head,
        )
    if found.state is None:
        weights.load(path, network, architecture=card.architecture)
    else:
        weights.put(found.state, network, path, architecture=card.architecture)
    digest = hashlib.sha256(_told_apart(preprocessing, card.classes).encode())
    digest.update(weights.digest(network).encode())
    network = network.eval() if own else folded(network.eval())
    network = custom.channels_last(network.to(device))
    chosen = precision.resolve(spec.precision, device)
    return Classifier(path, digest.hexdigest(), network, card.classes, preprocessing, device, chosen)


def _told_apart(preprocessing: Preprocessing, classes: list[str]) -> str:
    """The text that enters the digest: that of earlier versions, as long as the pictures are theirs."""
    spectrogram = preprocessing.spectrogram
    if spectrogram is not None and spectrogram.sample_format == "auto":
        preprocessing = replace(preprocessing, spectrogram=replace(spectrogram, sample_format="float32"))
    transform = f"transform {preprocessing.transform}" if preprocessing.transform > 1 else ""
    channel = f"channel {spectrogram.channel}" if spectrogram is not None and spectrogram.channel else ""
    several = f"of {spectrogram.channels}" if spectrogram is not None and spectrogram.channels > 1 else ""
    return f"{(preprocessing, classes)!r}{transform}{channel}{several}"


def folded(network: nn.Module) -> nn.Module:
    """The network with each batch norm folded into the convolution before it.

    It must be in eval() and traceable by torch.fx. A network without batch norms is returned unchanged.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    return fuse(network, inplace=True)


def _preprocessing(spec: InferenceJobSpec, card: weights.Card, kind: str, usual_rate: UsualRate) -> Preprocessing:
    """The preprocessing that makes pictures like the training pictures from input of `kind`."""
    trained = card.preprocessing
    if kind == "image":
        if trained.spectrogram is not None:
            drawn = as_written(trained.spectrogram)
            log.warning(
                "the weights were trained on recordings: the pictures must be drawn in the same way", drawn=drawn
            )
        return replace(trained, spectrogram=None)
    if trained.spectrogram is None:
        if spec.iq is None:
            raise InvalidConfigurationError(
                "the weights were trained on images, the input is recordings: write spec.iq (sampleRate, "
                "frameSeconds, fftSize, hopSize, window, dynamicRange, colorMap) so that the spectrograms look like "
                "those images",
            )
        return replace(trained, spectrogram=_stated(spec.iq, usual_rate))
    if spec.iq is None:
        # In weights of earlier versions float32 was the default, which says nothing about these files.
        auto = trained.spectrogram.sample_format == "float32"
        return replace(trained, spectrogram=replace(trained.spectrogram, sample_format="auto")) if auto else trained
    return replace(trained, spectrogram=_same_transform(trained.spectrogram, spec.iq))


def _stated(iq: Iq, usual_rate: UsualRate) -> SpectrogramParameters:
    """The parameters that a job states, with the usual sample rate of its recordings if it states none."""
    return spectrogram_parameters(iq, usual_rate(iq.sample_format) if iq.sample_rate is None else None)


def _same_transform(trained: SpectrogramParameters, iq: Iq) -> SpectrogramParameters:
    """The trained transform with the input's sample format and channels; every other difference is an error."""
    asked = spectrogram_parameters(iq, trained.sample_rate)
    differing = differences(trained, asked)
    if differing:
        here = {"sampleFormat": asked.sample_format, "channel": asked.channel, "channels": asked.channels}
        whole = {**as_written(trained), **here}
        raise InvalidConfigurationError(
            f"spec.iq differs from the parameters of the weights ({'; '.join(differing)}; omitted fields have their "
            "defaults): leave spec.iq out, or, if the recordings have another sampleFormat, write all of it: "
            f"iq: {json.dumps(whole)}",
            reason=reasons.PREPROCESSING_MISMATCH,
        )
    return replace(trained, sample_format=asked.sample_format, channel=asked.channel, channels=asked.channels)
