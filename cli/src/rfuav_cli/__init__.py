"""`kubectl rfuav`: the queue, why a job waits, who holds which GPUs, logs, jobs from flags.

In: the words of a command, and what the API server shows its user. Out: tables, manifests, changed jobs.
It must not know the gateway's code, nor how the operator writes: it acts with its user's own rights, through kubectl.
"""
