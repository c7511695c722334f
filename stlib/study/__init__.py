"""The study itself: running experiments, keeping records, comparing with the papers."""
