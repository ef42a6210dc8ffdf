"""Queues, admits and runs drone-signal training and inference jobs on Kubernetes."""
