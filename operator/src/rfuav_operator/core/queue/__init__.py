"""Who is next.

In: jobs, their pools, quotas and volumes. Out: the jobs in order, what their quotas allow, and why one may not run
whatever the room. It must not know which node a job gets, nor who stops for it.
"""
