"""Student-teacher anomaly detectors on MVTec AD: STPM, ET-STPM, DeSTSeg and PFADSeg, reproduced."""

__version__ = "0.1.0"
