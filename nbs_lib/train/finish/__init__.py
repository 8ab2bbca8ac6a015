"""The end of a training.

calibration  the dial, measured on held-out examples
finalize     the weights saved, loaded back and described
model_card   the model card
result       what a finished training says of itself
"""
