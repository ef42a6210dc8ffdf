"""A real Kubernetes on this machine with nothing preinstalled.

`make demo`, the cluster tests and the benchmarks use it.

In: a name and a profile. Out: a running cluster's kubeconfig and, on the full profile, a registry its nodes pull from.
It must not know what runs there: no job, no operator, no trainer.
"""
