"""Networks, losses and anomaly maps."""
