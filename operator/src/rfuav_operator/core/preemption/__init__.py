"""Which pods stop so that a job can run.

In: one blocked job, the running jobs, and what their namespaces borrow. Out: victims, or none. It must not know what
stopping does to a status, or which job is admitted next.
"""
