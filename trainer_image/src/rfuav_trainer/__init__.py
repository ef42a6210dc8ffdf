"""Trains, evaluates and runs drone-signal classifiers, on a laptop as in a pod."""
