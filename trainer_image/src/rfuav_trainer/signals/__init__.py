"""Radio recordings as pictures: raw samples to frames, frames to spectrograms, levels to colours.

In: files of IQ samples and the parameters of a spectrogram. Out: tensors.
It must not know classes, data sets or networks.
"""
