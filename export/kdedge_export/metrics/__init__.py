"""Metrics on predictions and saliency maps: agreement, calibration, faithfulness, localization, robustness."""
