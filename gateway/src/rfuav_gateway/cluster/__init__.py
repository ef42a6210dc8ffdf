"""The API server as the gateway sees it: jobs in a cache that follows it, and writes that are sent as the caller.

In: lists, watches and answers. Out: tasks by id, pages of tasks, created and changed jobs.
It must not know HTTP, nor who may see what: whoever asks it has asked that before.
"""
