"""The room on the nodes.

In: nodes, pods and the limits of the pools. Out: what is free on each node, which node takes a shape, and why none
does. It must not know the order of the queue, the history of a job, or the victims of preemption.
"""
