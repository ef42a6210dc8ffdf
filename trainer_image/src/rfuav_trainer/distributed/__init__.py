"""Several processes that train one network: one for each GPU of a pod, on one node or on several.

In: a job of several GPUs and torchrun's environment. Out: sums over all processes, and one cause when they end.
It must not know the training loop.
"""
