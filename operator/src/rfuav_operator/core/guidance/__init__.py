"""Guidance for people: what stands between a job and its GPUs, what to do about a reason, when a job would start.

In: jobs, pools and quotas, or a snapshot. Out: words. It must not know who asks, nor how it is shown.
"""
