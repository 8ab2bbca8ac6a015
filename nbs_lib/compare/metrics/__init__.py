"""Metrics of a comparison.

image_metrics       distances between pictures, and between sets of pictures
clip                the CLIP that scores pictures
confidence          95 % intervals
dial                the guidance scale that a dial gives, beside the one that was asked for
"""
