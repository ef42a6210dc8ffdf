"""The room on the nodes.

In: nodes, pods and the limits of the pools. Out: what is free on each node, which node takes a shape, why none
does, and which nodes share their GPUs how. It must not know the order of the queue, or the victims of preemption.
"""
