"""Datasets: MVTec AD, the demo dataset, downloads."""
