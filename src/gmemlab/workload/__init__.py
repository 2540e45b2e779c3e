"""Workloads: scenario files, and the event streams that are generated from them."""
