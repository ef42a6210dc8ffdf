"""Where bytes come from and go to: volumes, object stores, caches, locks, and files that appear whole or not at all.

In: URIs and paths. Out: local paths to read and to write, marks of finished jobs.
It must not know what is in the files, only which belong together (`a.iq` and its `a.json`).
"""
