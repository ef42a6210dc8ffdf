"""A real Kubernetes on this machine with nothing preinstalled, for the demo, the tests and the benchmarks."""
