"""Which job is next.

In: jobs, their pools, quotas and volumes. Out: the jobs in order, what their quotas allow, and why one may not run
even with room. It must not know which node a job gets, or which pods stop for it.
"""
