"""A real Kubernetes on this machine with nothing preinstalled.

What `make demo`, the cluster tests and the benchmarks stand on.

In: a name and a profile. Out: a running cluster's kubeconfig and, on the full profile, a registry its nodes pull from.
"""
