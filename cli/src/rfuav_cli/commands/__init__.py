"""The commands, each with its options and what it asks the cluster for.

In: a session, and the values of the options. Out: what is printed. A command must not know how the cluster is reached.
"""
