"""Evaluation: predictions against labels.

In: scores and labels, or the prediction files of a job. Out: metrics, tables, a confusion matrix, a report.
It must not know networks, or how the predictions were made.
"""
