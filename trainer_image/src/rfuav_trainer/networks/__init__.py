"""Networks and their weights: architectures, weights files, number formats, and how many pictures fit into memory.

In: the name of an architecture or the file of a custom one, and weights. Out: modules of torch.
It must not know optimizers, jobs' outputs, or how many processes there are.
"""
