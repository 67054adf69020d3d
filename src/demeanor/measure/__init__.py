"""Numbers without tensors: calibration, thresholds, what is unsafe, how well scores discriminate, statistics, drift."""
