"""How raw IQ recordings are read and turned into spectrograms."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from rfuav_crds.common import Spec
from rfuav_crds.quantity import Frequency, parse_quantity
from rfuav_crds.rules import ATOMIC, Rule

_SAMPLE_RATE = "100M"
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
            f"quantity(has(self.sampleRate) ? string(self.sampleRate) : '{_SAMPLE_RATE}').asApproximateFloat() * "
            f"{_given('frameSeconds', _FRAME_SECONDS)} >= double({_given('fftSize', _FFT_SIZE)})",
            message="a frame of frameSeconds x sampleRate samples is shorter than fftSize: raise frameSeconds "
            "or lower fftSize",
            field=".frameSeconds",
            check=lambda iq: float(parse_quantity(iq.sample_rate)) * iq.frame_seconds >= iq.fft_size,
        ),
    )

    sample_rate: Frequency = Field(
        _SAMPLE_RATE, description="Complex samples per second, as a quantity (100M) or a number. Default: 100M."
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
