"""Artificial recordings: drone-like signals through a radio channel, labelled by folder.

In: a specification and a seed. Out: a folder of recordings or pictures with one folder for each class.
It must not know training, inference or jobs.
"""
