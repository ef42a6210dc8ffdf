"""`make demo`: the whole way of the data on a real cluster that it brings itself."""
