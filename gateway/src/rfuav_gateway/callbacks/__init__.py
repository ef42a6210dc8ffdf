"""Callbacks of tasks that have ended: one replica delivers them all, and what was delivered is kept in the cluster.

In: jobs that end, and whether a receiver took a message. Out: signed POSTs, and a record in the gateway's namespace. It
must not know HTTP routes or callers, and it writes no job: see docs/adr/0013.
"""
