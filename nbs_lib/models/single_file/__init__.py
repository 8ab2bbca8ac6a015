"""A base in one safetensors file, as Civitai and ComfyUI have them, converted to a folder.

kinds      the kinds of checkpoints, told apart by their weights' names, and their predictions
convert    the conversion through diffusers' own loader, once for each state of a file
configs/   the published settings of each kind, which such a file lacks
merges.txt CLIP's vocabulary, which all kinds share (arXiv 2103.00020; MIT license)
"""

from .convert import converted

__all__ = ["converted"]
