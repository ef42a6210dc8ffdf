"""The REST gateway: the interface of the RFUAV model service, answered by TrainingJobs and InferenceJobs.

In: HTTP requests, and what the API server holds. Out: answers, streams, and writes to the API server.
It must not know how jobs are admitted or run: it asks the operator's pure core, and decides nothing.
"""
