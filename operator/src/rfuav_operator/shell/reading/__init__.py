"""What the cluster holds, as the core's values.

In: watch events, lists and answers to writes, as JSON. Out: `ClusterState`, and snapshots of it for the core.
It must not know its callers: no loop, no writer, no server; it makes no decisions.
"""
