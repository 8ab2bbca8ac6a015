"""Muon for the matrices of hidden layers, and AdamW for all other weights."""

from collections.abc import Sequence

import torch
from torch import Tensor

BETAS = (0.9, 0.99)
WEIGHT_DECAY = 1e-3
FEWEST = 4  # inputs or outputs of a hidden layer; a picture has three channels


class Muon(torch.optim.Muon):
    """Muon for convolutions too, each as the matrix of its outputs by its inputs and places.

    Its steps are of orthogonal matrices, so that all directions of a layer learn at one rate. The
    VAE's convolutions learn with it in a third of AdamW's steps.

    Source: arXiv 2502.16982, whose rates are those of AdamW.
    """

    def __init__(self, weights: Sequence[Tensor], lr: float):
        self.weights = list(weights)
        # views, so that a step changes the weights themselves
        matrices = [torch.nn.Parameter(_as_matrix(weight.data, weight)) for weight in weights]
        super().__init__(matrices, lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure=None):
        for matrix, weight in zip(self.param_groups[0]["params"], self.weights, strict=True):
            matrix.grad = _as_matrix(weight.grad, weight)
        return super().step(closure)

    def zero_grad(self, set_to_none: bool = True):
        for weight in self.weights:
            weight.grad = None


def new_optimizers(
    parameters: Sequence[Tensor], lr: float, matrix_lr: float
) -> list[torch.optim.Optimizer]:
    """Return the optimizers of a training.

    lr: of AdamW
    matrix_lr: of Muon; 0 leaves all weights to AdamW
    """
    matrices = [weight for weight in parameters if matrix_lr and _is_hidden(weight)]
    chosen = {id(weight) for weight in matrices}
    others = [weight for weight in parameters if id(weight) not in chosen]
    optimizers = [torch.optim.AdamW(others, lr, betas=BETAS, weight_decay=WEIGHT_DECAY)]
    return optimizers + ([Muon(matrices, matrix_lr)] if matrices else [])


def _is_hidden(weight: Tensor) -> bool:
    return weight.ndim > 1 and min(weight.shape[:2]) >= FEWEST


def _as_matrix(values: Tensor, weight: Tensor) -> Tensor:
    """Return a weight's values or gradient as [outputs, the rest], in the weight's own order."""
    # the order of a matrix's columns does not matter, and in this one nothing is copied
    last = weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    ordered = values.permute(0, 2, 3, 1) if last else values
    return ordered.reshape(len(weight), -1)
