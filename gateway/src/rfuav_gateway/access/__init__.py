"""Who calls, and what they may do. The API server decides both, asked with the caller's own credentials.

In: headers and addresses of requests. Out: callers, and yes or no for a verb on a resource in a namespace.
It must not know jobs or routes. The gateway has no right that it lends: see docs/adr/0012.
"""
