"""What was decided, carried to the API server.

In: the core's actions, and the default pool of the settings. Out: requests in order for each job, and their answers,
which enter `ClusterState` at once. It must not know why an action was decided, nor the servers.
"""
