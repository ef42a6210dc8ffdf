"""How raw IQ recordings are read and turned into spectrograms."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from rfuav_crds.common import Spec
from rfuav_crds.quantity import Frequency, parse_quantity
from rfuav_crds.rules import ATOMIC, Rule

DEFAULT_SAMPLE_RATE = "100M"
"""Where neither the job nor the recordings state one."""
_FRAME_SECONDS = 0.1
_FFT_SIZE = 1024
_HOP_SIZE = 512


def _given(field: str, default: float) -> str:
    """CEL: the field, or its default, which is not stored."""
    return f"(has(self.{field}) ? self.{field} : {default})"


class Iq(Spec):
    """Complex baseband recordings: interleaved I and Q, cut into frames, one spectrogram a frame."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)
    rules = (
        Rule(
            cel=f"{_given('hopSize', _HOP_SIZE)} <= {_given('fftSize', _FFT_SIZE)}",
            message="hopSize is at most fftSize, or samples between two windows are lost: write half of fftSize",
            field=".hopSize",
            check=lambda iq: iq.hop_size <= iq.fft_size,
        ),
        Rule(
            cel=f"(has(self.sampleRate) && !isQuantity(string(self.sampleRate))) || "
            f"quantity(has(self.sampleRate) ? string(self.sampleRate) : '{DEFAULT_SAMPLE_RATE}').asApproximateFloat() "
            f"* {_given('frameSeconds', _FRAME_SECONDS)} >= double({_given('fftSize', _FFT_SIZE)})",
            message="a frame of frameSeconds x sampleRate samples is shorter than fftSize: raise frameSeconds "
            "or lower fftSize",
            field=".frameSeconds",
            check=lambda iq: iq.rate * iq.frame_seconds >= iq.fft_size,
        ),
    )

    sample_rate: Frequency | None = Field(
        None,
        description="Complex samples per second, as a quantity (100M) or a number. Recordings whose SigMF metadata or "
        "sidecar (.xml of a pack) states another rate are resampled to it; the ratio must be one of whole numbers up "
        "to 1000. If it is not stated, the rate that most recordings state counts, else 100M. Default: none.",
    )
    channel: Annotated[int, Field(ge=0, le=1023)] = Field(
        0,
        description="Channel of recordings that have several (core:num_channels of SigMF, or channels), counted from "
        "0; recordings without it are unreadable. Default: 0.",
    )
    channels: Annotated[int, Field(ge=1, le=1024)] = Field(
        1,
        description="How many channels are interleaved, sample by sample, in recordings without SigMF metadata, 1 to "
        "1024. Default: 1.",
    )
    frame_seconds: Annotated[float, Field(gt=0, le=60)] = Field(
        _FRAME_SECONDS, description="Length of one frame in seconds, more than 0 and at most 60. Default: 0.1."
    )
    fft_size: Annotated[int, Field(ge=16, le=65536)] = Field(
        _FFT_SIZE, description="Points of each Fourier transform, 16 to 65536. Default: 1024."
    )
    hop_size: Annotated[int, Field(ge=1, le=65536)] = Field(
        _HOP_SIZE, description="Samples from one window to the next, 1 to fftSize. Default: 512."
    )
    window: Literal["hamming", "hann", "blackman"] = Field("hamming", description="Window function. Default: hamming.")
    sample_format: Literal["auto", "float32", "int16", "int8", "uint8"] = Field(
        "auto",
        description="Type of each I and Q value in the file, little-endian, interleaved; auto: what SigMF metadata or "
        "the suffix says (.cf32 and .cfile float32, .cs16 int16, .cs8 int8, .cu8 uint8), else float32; .bin needs one "
        "of the others. Default: auto.",
    )
    dynamic_range: Annotated[float, Field(gt=0, le=150)] = Field(
        40.0,
        description="Height of the scale of levels, in units of 10 log10|Z|: the frame's brightest point has the map's "
        "last colour, what lies this far below it the first, more than 0 and at most 150. Default: 40.",
    )
    color_map: Literal[
        "gray",
        "autumn",
        "bone",
        "cool",
        "copper",
        "hot",
        "hsv",
        "jet",
        "parula",
        "plasma",
        "turbo",
        "viridis",
        "winter",
    ] = Field("gray", description="Colours of the spectrograms; gray: one channel. Default: gray.")

    @property
    def rate(self) -> float:
        """The sample rate in Hz; DEFAULT_SAMPLE_RATE if none is stated."""
        return float(parse_quantity(self.sample_rate or DEFAULT_SAMPLE_RATE))
