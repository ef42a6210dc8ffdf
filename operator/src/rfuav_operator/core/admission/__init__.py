"""Which jobs start now.

In: the queues, the room, the quotas, and the jobs that changed. Out: a `Plan` with new statuses, pods to create and
pods to delete. It must not know how a pod is built, why one failed, or when something is written.
"""
