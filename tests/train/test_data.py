import torch
from safetensors.torch import save_file

from nbs_lib.train.data import Examples


def examples(folder, n=7):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(n, 4, 2, 2, generator=generator)
    save_file({"latents": latents}, folder / "latents.safetensors")
    embeddings, index = torch.randn(3, 5, 6, generator=generator), torch.arange(n) % 3
    save_file({"embeddings": embeddings, "index": index, "empty": torch.zeros(5, 6)}, folder / "text.safetensors")
    (folder / "cache.json").write_text("{}")
    return Examples(folder)


def test_a_batch_depends_on_seed_and_step_alone(tmp_path):
    cache, cpu = examples(tmp_path), torch.device("cpu")
    first, again = cache.batch(0, 5, 4, 0, 1, cpu), cache.batch(0, 5, 4, 0, 1, cpu)
    assert torch.equal(first.noise, again.noise) and torch.equal(first.t, again.t)
    assert not torch.equal(first.noise, cache.batch(0, 6, 4, 0, 1, cpu).noise)
    assert not torch.equal(first.noise, cache.batch(1, 5, 4, 0, 1, cpu).noise)


def test_two_processes_share_the_batch_that_one_would_have(tmp_path):
    cache, cpu = examples(tmp_path), torch.device("cpu")
    whole = cache.batch(0, 5, 4, 0, 1, cpu)
    halves = [cache.batch(0, 5, 2, rank, 2, cpu) for rank in (0, 1)]
    for name in ("latents", "noise", "t", "context"):
        assert torch.equal(torch.cat([getattr(half, name) for half in halves]), getattr(whole, name))


def test_an_example_keeps_its_own_caption(tmp_path):
    cache = examples(tmp_path)
    batch = cache.batch(0, 0, 64, 0, 1, torch.device("cpu"))
    for latent, context in zip(batch.latents, batch.context, strict=True):
        i = next(i for i, known in enumerate(cache.latents) if torch.equal(known, latent))
        assert torch.equal(context, cache.embeddings[cache.index[i]])
