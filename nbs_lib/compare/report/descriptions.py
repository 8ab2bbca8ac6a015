"""What the pictures of a comparison are, in words: their contender, and their precision."""

from pathlib import Path

from ...config.contenders import SPLIT_CONTENDER, parse_contender


def describe_contender(name: str, results: dict) -> str:
    """Return what a contender is, in a few words."""
    contender = parse_contender(name)
    words = _describe_model(contender, results)
    if contender.steps:
        words += f", in {contender.steps} steps"
    if contender.engine != "eager":
        words += f", on {contender.engine}"
    if contender.kind == "tuned" and contender.guided is not None:
        share = 100 * contender.guided
        words += f", w = {SPLIT_CONTENDER:g} on the first {share:.0f} % of the steps"
    return words


def _describe_model(contender, results):
    if contender.kind == "tuned":
        if results["whole_model"]:
            return "all weights trained"
        scale = contender.adapter_scale
        scale = results["adapter_scale"] if scale is None else scale
        return f"base + adapter, λ = {scale:g}"
    if contender.kind == "pipeline":
        return " + ".join(f"pipeline {Path(folder).name}" for folder, _ in contender.folders)
    if contender.kind == "adapters":
        parts = contender.folders
        return " + ".join(f"{Path(folder).name}, λ = {scale:g}" for folder, scale in parts)
    if not contender.guided:
        return "base, w = 1"
    w = f"base, w = {contender.scale or results['w_train']:g}"
    if contender.guided == 1:
        return w
    return f"{w}, except for the last {100 * (1 - contender.guided):.0f} % of the steps"


def describe_precision(results: dict) -> str:
    """Return the precision of the pictures and its difference from fp32, "" for fp32."""
    # an older comparison has none
    difference = results.get("precision_difference")
    if difference is None:
        return ""
    return (
        f"sampled in {results['mixed_precision']}: on fixed noise the base's prediction differs "
        f"from fp32's by {100 * difference:.2g} % (root mean square)"
    )
