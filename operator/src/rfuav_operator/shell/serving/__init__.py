"""What others ask of the process: pods that report, the kubelet and Prometheus.

In: HTTP(S) requests. Out: answers, and the reports that the loop takes.
It must not know the loop nor the writer: a report is evidence, never a decision.
"""
