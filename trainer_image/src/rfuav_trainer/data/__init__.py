"""Data sets: which samples there are, their labels and conditions, and how they become batches of pictures.

In: folders or manifests, labelled or not. Out: samples in a stable order, pictures of one size, batches.
It must not know networks, or whether the pictures are used for training or for inference.
"""
