"""One job's life.

In: one job, its pods and the time. Out: its next status, its pods to create and to delete, and when time alone changes
it. It must not know any other job, its place in the queue, or how much room is left.
"""
