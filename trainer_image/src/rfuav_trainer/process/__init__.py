"""The process that a job runs in: signals, device, threads, logs, and how it ends.

In: the job and the environment. Out: settings of this process, log lines, the termination message.
It must not know where data is stored, what a network is, or which command runs.
"""
