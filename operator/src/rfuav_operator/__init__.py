"""Queues, admits and runs drone-signal training and inference jobs on Kubernetes.

In: the cluster, settings, reports of pods. Out: pods, and the statuses of jobs, pools and quotas.
It must not know how a trainer works: they meet in `rfuav_crds.contract` alone.
"""
