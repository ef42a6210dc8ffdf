"""One job's life.

In: one job, its pods, their nodes and reports, the job it takes weights from, and the time. Out: its next status, its
pods to create and to delete, and when time alone changes it. It must not know its place in the queue, or who else runs.
"""
