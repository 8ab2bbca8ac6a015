"""Image metrics, CLIP scores, confidence intervals and the effective guidance of an adapter scale."""
