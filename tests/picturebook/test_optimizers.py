"""The optimizers of the base's training."""

import copy

import pytest
import torch

from nbs_lib.picturebook.training.loop import fit
from nbs_lib.picturebook.training.loop.fit import Fit, train_network
from nbs_lib.picturebook.training.loop.optimizers import Muon, new_optimizers


def small_network(layout: torch.memory_format) -> torch.nn.Module:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.SiLU()]
    layers += [torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(8, 3, 1)]
    return torch.nn.Sequential(*layers).to(memory_format=layout)


def train_small(folder, steps: int, matrix_lr: float, layout=torch.contiguous_format) -> dict:
    """Train a network to invert pictures; return its weights and its last loss."""
    network = small_network(layout)

    def draw_batch(generator):
        return (torch.rand(4, 3, 8, 8, generator=generator),)

    def loss(x):
        return (network(x.to(memory_format=layout)) - (1 - x)).square().mean()

    options = Fit(steps, 4, 1e-3, ema=0.9, matrix_lr=matrix_lr)
    result = train_network("small", network, draw_batch, loss, options, folder)
    return copy.deepcopy(network.state_dict()) | {"loss": result["loss"]}


def test_a_step_of_muon_is_an_orthogonal_matrix_of_adam_s_size():
    """By hand: all singular values of the step are near 0.2 √(larger side) of the rate."""
    weight = torch.zeros(8, 4, 3, 3, requires_grad=True)
    weight.grad = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    optimizer = Muon([weight], 0.01)
    optimizer.step()
    singular = torch.linalg.svdvals(weight.detach().flatten(1)) / (0.01 * 0.2 * 36**0.5)
    # the iteration of the paper ends in [0.7, 1.2]
    assert 0.65 < singular.min() and singular.max() < 1.25
    optimizer.zero_grad()
    assert weight.grad is None


def test_the_order_of_a_weight_in_memory_does_not_matter(tmp_path):
    plain = train_small(tmp_path / "plain", 5, 0.01)
    last = train_small(tmp_path / "last", 5, 0.01, torch.channels_last)
    for name, value in plain.items():
        # Muon computes in bf16
        assert torch.allclose(torch.as_tensor(value), torch.as_tensor(last[name]), atol=2e-3), name


def test_only_matrices_between_hidden_layers_are_muon_s():
    network = small_network(torch.contiguous_format)
    adamw, muon = new_optimizers(list(network.parameters()), 1e-3, 1e-2)
    assert [len(weight) for weight in muon.weights] == [8]
    assert len(adamw.param_groups[0]["params"]) == 5
    [alone] = new_optimizers(list(network.parameters()), 1e-3, 0.0)
    assert len(alone.param_groups[0]["params"]) == 6


def test_an_interrupted_training_with_muon_ends_in_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "SAVE_SECONDS", 0.0)
    expected = train_small(tmp_path / "uninterrupted", 30, 0.01)
    clip = torch.nn.utils.clip_grad_norm_
    calls = iter(range(100))

    def interrupt(*args):
        if next(calls) == 17:
            raise KeyboardInterrupt
        return clip(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch.nn.utils, "clip_grad_norm_", interrupt)
        train_small(tmp_path / "killed", 30, 0.01)
    resumed = train_small(tmp_path / "killed", 30, 0.01)
    for name in expected.keys() - {"loss"}:
        assert (expected[name] == resumed[name]).all(), name


def test_muon_learns_faster_than_adamw_alone(tmp_path):
    alone = train_small(tmp_path / "alone", 60, 0.0)
    both = train_small(tmp_path / "both", 60, 0.02)
    assert both["loss"] < alone["loss"]
