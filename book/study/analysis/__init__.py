"""What the records and the papers' numbers say, as frames and dataclasses."""
