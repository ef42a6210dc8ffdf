"""What the cluster holds, as the core's values.

In: watch events, lists and answers to writes, as JSON. Out: `ClusterState`, and of it the snapshot that the core reads.
It must not know who asks: no loop, no writer, no server; it decides nothing.
"""
