"""Scores that the field reports, parsed from text: `NAME: MODEL`.

pickscore   a CLIP tuned on people's choices, arXiv 2305.01569
hpsv2.1     another one, arXiv 2306.09341
cmmd        distance of sets in a CLIP's features, arXiv 2401.09603
fd_dinov2   Fréchet distance of sets in DINOv2's features, arXiv 2306.04675

MODEL is the folder of the model or its hub id.
"""

SCORES = ("pickscore", "hpsv2.1", "cmmd", "fd_dinov2")
ALLOWED = f"a list of NAME: MODEL, NAME one of {', '.join(SCORES)}, each once, or an empty one"


def parse_scores(texts: list[str]) -> dict[str, str]:
    """Return the model of each score by the score's name. Errors: ValueError, in words."""
    models = {}
    for text in texts:
        # the first colon only: a path may have more
        name, _, model = (part.strip() for part in text.partition(":"))
        if name not in SCORES or not model or name in models:
            raise ValueError(f"score {text!r}; allowed is {ALLOWED}")
        models[name] = model
    return models
