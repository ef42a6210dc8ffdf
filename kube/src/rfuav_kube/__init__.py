"""A client of the Kubernetes API, whatever it is for.

In: credentials, paths, bytes of watches and answers. Out: answers, caches that follow the cluster, leases, ordered
writes. It must not know what the objects mean: no job, no pool, no settings, no package of this project.
"""
