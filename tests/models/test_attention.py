"""A text's equal tokens computed once, against diffusers' transformer that computes them all."""

import copy

import pytest
import torch
from diffusers import SD3Transformer2DModel
from diffusers.models.attention_processor import JointAttnProcessor2_0

from nbs_lib.models import find_base


@pytest.fixture(scope="module")
def base(tiny_base, tmp_path_factory):
    """A base with norms of queries, and with a second attention that reads no text."""
    return find_base(str(tiny_base("sd3", tmp_path_factory.mktemp("sd3"))))


def inputs(base) -> list[torch.Tensor]:
    """Return x_t, t and the texts' embeddings, in fp64."""
    text = base.encode_prompt(["a cat", "a dog in the snow"], base.text_encoders())
    x_t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([300.0, 999.0])
    return [tensor.double() for tensor in (x_t, t, *text)]


def without_counting(transformer: SD3Transformer2DModel) -> SD3Transformer2DModel:
    whole = copy.deepcopy(transformer)
    whole._forward_pre_hooks.clear()
    whole.set_attn_processor(JointAttnProcessor2_0())
    return whole


def test_prediction_and_gradients_are_those_of_all_tokens(base):
    counted = base.denoiser().double().requires_grad_(True)
    x_t, t, context, pooled = inputs(base)
    assert context.shape[1] == 40 + 256
    # distribution adds one vector to all tokens
    shift = 0.1 * torch.ones(context.shape[2], dtype=torch.float64)
    results = []
    for transformer in (counted, without_counting(counted)):
        added = shift.clone().requires_grad_(True)
        prediction = base.predict(transformer, x_t, t, context + added, pooled)
        (prediction * x_t).sum().backward()
        gradients = [weight.grad for weight in transformer.parameters()]
        results.append([prediction, added.grad, *(g for g in gradients if g is not None)])
    assert len(results[0]) > 50
    for ours, expected in zip(*results, strict=True):
        # diffusers' norms of queries and keys compute in fp32 even here
        tolerance = 1e-4 * float(expected.detach().abs().max())
        torch.testing.assert_close(ours, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_base_s_denoiser_predicts_what_the_stock_one_does(base, dtype):
    stock = SD3Transformer2DModel.from_pretrained(base.folder / "transformer", torch_dtype=dtype)
    values = [tensor.to(dtype) for tensor in inputs(base)]
    with torch.no_grad():
        ours = base.predict(base.denoiser(dtype), *values)
        expected = base.predict(stock, *values)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    assert (ours - expected).abs().max() < tolerance * expected.abs().max()


def test_the_computed_tokens(base):
    transformer = base.denoiser()
    lengths = []
    transformer.transformer_blocks[0].register_forward_pre_hook(
        lambda module, args, options: lengths.append(options["encoder_hidden_states"].shape[1]),
        with_kwargs=True,
    )
    x_t, t, context, pooled = (tensor.float() for tensor in inputs(base))
    with torch.no_grad():
        # the stock pipeline's max_sequence_length decides on the number of zeros
        for length in (296, 168, 41, 40, 8):
            transformer(
                x_t,
                encoder_hidden_states=context[:, :length],
                pooled_projections=pooled,
                timestep=t,
            )
    assert lengths == [41, 41, 41, 40, 8]


def test_a_base_with_t5_computes_all_tokens(tiny_base, tmp_path):
    base = find_base(str(tiny_base("sd3-t5", tmp_path)))
    assert not base.denoiser()._forward_pre_hooks
