"""Metrics of a comparison.

image_metrics       distances between pictures, and between sets of pictures
clip                the CLIP that scores pictures
confidence          95 % intervals
effective_guidance  the guidance scale that an adapter scale amounts to
"""
