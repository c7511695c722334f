"""What a run leaves for good, as validated JSON, and what the papers print. Imports no torch."""
