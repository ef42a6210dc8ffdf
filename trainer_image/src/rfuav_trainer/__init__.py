"""Trains, evaluates and runs drone-signal classifiers, on a laptop as in a pod.

In: a job, from a file or from RFUAV_JOB, and its data. Out: weights, predictions, reports, progress and an exit code.
It must not know the operator or the cluster: they meet in `rfuav_crds.contract` alone.
"""
