"""Networks and their weights: architectures, weights files, number formats, and how many pictures fit into memory.

In: the name of an architecture or of the function that builds a custom one, and weights. Out: modules of torch.
It must not know optimizers, jobs' outputs, or how many processes there are.
"""
