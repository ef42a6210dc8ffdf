"""Logs of tasks, for any number of readers: one stream from the API server for each pod, shared by all of them.

In: the log endpoint of pods, and which pods belong to a task now. Out: server-sent events as bytes, and JSON arrays.
It must not know HTTP routes, FastAPI, or who may read what: a route passes a coroutine that is asked again and again.
"""
