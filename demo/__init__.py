"""`make demo`: the whole way of the data on a cluster of its own, from an empty machine to predictions.

In: this checkout. Out: a running cluster, a live table, results in .demo/, and an exit code that says whether all of it
succeeded.
"""
