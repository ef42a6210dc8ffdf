"""Progress reports: to the operator, and to a person at a terminal.

In: the latest progress as plain values. Out: HTTP posts, a progress bar.
It must not know what kind of job runs, and it never delays one.
"""
