"""Which runs the study consists of, which are missing, and what they will cost."""
