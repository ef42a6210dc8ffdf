"""What room there is.

In: nodes, pods and the limits of the pools. Out: what is free on each node, which node takes a shape, and why none
does. It must not know who is next, what a job has done so far, or whom preemption would stop.
"""
