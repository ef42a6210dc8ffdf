"""How raw IQ recordings are read and turned into spectrograms."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from rfuav_crds.common import Spec
from rfuav_crds.quantity import Frequency, cel_quantity, parse_quantity
from rfuav_crds.rules import ATOMIC, Rule


class Iq(Spec):
    """Complex baseband recordings: interleaved I and Q, cut into frames, one spectrogram a frame."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)
    rules = (
        Rule(
            cel="self.hopSize <= self.fftSize",
            message="hopSize is at most fftSize, or samples between two windows are lost: write half of fftSize",
            field=".hopSize",
            check=lambda iq: iq.hop_size <= iq.fft_size,
        ),
        Rule(
            cel="!isQuantity(string(self.sampleRate)) || "
            f"{cel_quantity('self.sampleRate')}.asApproximateFloat() * self.frameSeconds >= double(self.fftSize)",
            message="a frame of frameSeconds x sampleRate samples is shorter than fftSize: raise frameSeconds "
            "or lower fftSize",
            field=".frameSeconds",
            check=lambda iq: float(parse_quantity(iq.sample_rate)) * iq.frame_seconds >= iq.fft_size,
        ),
    )

    sample_rate: Frequency = Field(
        "100M", description="Complex samples per second, as a quantity (100M) or a number. Default: 100M."
    )
    frame_seconds: Annotated[float, Field(gt=0, le=60)] = Field(
        0.1, description="Length of one frame in seconds, more than 0 and at most 60. Default: 0.1."
    )
    fft_size: Annotated[int, Field(ge=16, le=65536)] = Field(
        1024, description="Points of each Fourier transform, 16 to 65536. Default: 1024."
    )
    hop_size: Annotated[int, Field(ge=1, le=65536)] = Field(
        512, description="Samples from one window to the next, 1 to fftSize. Default: 512."
    )
    window: Literal["hamming", "hann", "blackman"] = Field("hamming", description="Window function. Default: hamming.")
    sample_format: Literal["float32", "int16", "int8"] = Field(
        "float32", description="Type of each I and Q value in the file, little-endian, interleaved. Default: float32."
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
