"""Who starts now.

In: the queues, the room and the quotas, and the jobs that changed. Out: a `Plan`: new statuses, pods to create, pods to
delete. It must not know how a pod is made, why one failed, or what is written when.
"""
