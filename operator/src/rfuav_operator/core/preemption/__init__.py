"""Who stops so that another can run.

In: one blocked job, who runs, and what their namespaces borrow. Out: victims, or nobody. It must not know what stopping
one does to its status, nor who is admitted next.
"""
