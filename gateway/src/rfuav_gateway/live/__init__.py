"""What happens in the cluster, as one stream of events for each open page: jobs, pools and quotas as they change.

In: the caches of `cluster`, and what each reader may see. Out: bytes of server-sent events. A change is noted and
encoded once for all readers. It must not know routes, callers or how rights are found.
"""
