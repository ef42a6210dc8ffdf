"""The emitter classes: what is on the air before any channel touches it.

In: a seeded generator, a length and a sample rate. Out: complex baseband of unit power in its bursts, and the mask of
those bursts. Widths and timings are physical (Hz, seconds), whatever the sample rate.
It must not know the channel, the receiver or files.
"""
