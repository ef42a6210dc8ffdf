"""Statuses and specs as the API server stores them.

In: values of the model, or what was read. Out: the same within the bounds of the CRDs, packed where there is
much of it. It must not know any rule: what it changes is what the API server would refuse.
"""
