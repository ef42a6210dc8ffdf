"""The pure rules: values in, values out. No clock, no I/O, no kopf.

In: a `model.Snapshot` of what the API server holds, through `scheduler.Scheduler` or, once, `scheduler.turn`. Out:
actions, as values, and when to ask again. It must not know the caller: the operator's loop, a gateway, a command line.
"""
