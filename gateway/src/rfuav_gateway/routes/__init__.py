"""The routes: one file for each group of paths. They ask access, read the cache, write as the caller, and answer.

In: checked bodies and the caller. Out: answers. They must not know sockets, or how the cache is kept.
"""
