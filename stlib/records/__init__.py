"""What a run leaves for good, as validated JSON. Imports no torch."""
