"""What the REST interface means: tasks, and the jobs that they are. Pure: the same input gives the same output.

In: bodies of requests, settings, and jobs as the API server holds them. Out: manifests of jobs, tasks, messages.
It must not know HTTP, the network, the clock or FastAPI: whoever calls it passes times and new ids.
"""
