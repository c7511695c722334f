"""The study as it is reported: its plan, its analysis, its tables and figures. `stlib` makes the runs."""
