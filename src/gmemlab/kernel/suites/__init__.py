"""Suites of random operations: how they are made, driven on the running kernel, observed and recorded.

A suite runs in any world that speaks `steps.World`: the live one (here), and the model's (in `lab.conform`), which is how
the two are compared. Standard library only, so that suites can be recorded inside an emulated machine and judged outside.
"""
