"""What an on-call engineer sees: the table of metrics and the dashboards, both made from the code.

In: the registries of operator and gateway. Out: docs/metrics.md and the dashboards of the chart. Alerts are written by
hand, in the chart's files/alerts.yaml; docs/runbooks.md has a section for each.
"""
