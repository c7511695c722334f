"""The study as it is reported: its plan, its analysis, its tables and figures. `stlib` makes the runs.

What the pages need imports no torch, so that they build quickly; `pyproject.toml` lists it.
"""
