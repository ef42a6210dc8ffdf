"""Training: from a TrainingJob to weights, checkpoints, a history and a report.

In: a job and its data set. Out: files in the job's output folder, and progress.
It must not know the command line or inference.
"""
