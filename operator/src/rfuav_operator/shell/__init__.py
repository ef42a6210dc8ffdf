"""The thin shell around the core: the loop, and what it reads, writes and serves.

In: the cluster as the API server holds it, reports of pods, settings. Out: the writes that the core has decided.
It must not decide what jobs do: that is the core's.
"""
