"""The HTTP edge: what every request meets before and after its route.

In: sockets and ASGI messages. Out: bounded requests with an id, answers in the reference's form of errors, access logs.
It must not know tasks, jobs or the cluster.
"""
