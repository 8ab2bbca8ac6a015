"""Checks of a base before it is used, by headers and settings, without a weight in memory.

headers             files of settings and headers of weights
component_settings  types and ranges of a component's settings
weight_shapes       the weights that the settings ask for against those in the files
"""
