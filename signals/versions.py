"""Raised whenever what a number follows from changes: what was made before is then made again."""

METRICS = 2  # signals/metrics.py, signals/perceptual.py
DEGRADATIONS = 2  # datamodules/degradations.py, and the filters and resamplers below it
