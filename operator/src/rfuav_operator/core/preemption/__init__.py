"""Which pods stop so that a job can run.

In: one blocked job, the running jobs, and what their namespaces borrow. Out: victims, marked as
stopping, or none. It must not know how a victim ends, or which job is admitted next.
"""
