"""Inference: from an InferenceJob to predictions, annotated pictures and, when asked for, an evaluation.

In: a job, weights, and inputs. Out: files in the job's output folder, one set for each shard, and progress.
It must not know the command line or training.
"""
