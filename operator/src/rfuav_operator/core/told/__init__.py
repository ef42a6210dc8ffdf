"""What people are told: what stands between a job and its GPUs, what to do about a reason.

In: jobs, pools and quotas. Out: words. It must not know who asks, nor how it is shown.
"""
