import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file, save_file

from nbs_lib.config import Train
from nbs_lib.diffusion import noise_like
from nbs_lib.train.dataset import DataError, Examples, check_cache

ONLY = Train(validation_examples=0, batch_size=4)


def examples(
    folder: Path,
    config: Train = ONLY,
    n: int = 8,
    prior: int = 0,
    answers: dict | None = None,
    **more,
) -> Examples:
    """A cache of n examples with three captions in two shards, the last `prior` of them there to keep what the base knew.

    more: columns of examples.parquet, or `pooled`, `shape` of the second shard, `meta`.
    """
    generator, half = torch.Generator().manual_seed(0), n // 2
    for name in ("latents", "texts", "answers"):
        (folder / name).mkdir(exist_ok=True)
    shapes = [(4, 2, 2), more.pop("shape", (4, 2, 2))]
    for shard, shape in enumerate(shapes):
        latents = torch.randn(half, *shape, generator=generator)
        save_file({"latents": latents}, folder / "latents" / f"l{shard}.safetensors")
        if answers:
            own = {
                name: part[half * shard : half * (shard + 1)].contiguous()
                for name, part in answers.items()
            }
            save_file(own, folder / "answers" / f"a{shard}.safetensors")
    texts = torch.randn(3, 5, 6, generator=generator)
    away = {"empty": torch.zeros(5, 6), "negative": torch.ones(5, 6)}
    pooled = more.pop("pooled", False)
    for shard, rows in enumerate((texts[:2], texts[2:])):
        own = {"embeddings": rows.contiguous()} | (
            {"pooled": rows[:, 0, :4].clone()} if pooled else {}
        )
        save_file(own, folder / "texts" / f"t{shard}.safetensors")
    away |= {f"{name}_pooled": part[0, :4].clone() for name, part in away.items()} if pooled else {}
    save_file(away, folder / "unconditional.safetensors")
    meta = {
        "shards": [
            {"name": f"l{i}", "rows": half, "shape": list(shape), "answers": f"a{i}"}
            for i, shape in enumerate(shapes)
        ]
    }
    meta |= {"texts": [{"name": "t0"}, {"name": "t1"}], "images": True}
    meta["answers"] = (
        {"seed": 7, "states": "trajectories" if "x_t" in answers else "data"} if answers else None
    )
    (folder / "cache.json").write_text(json.dumps(meta | more.pop("meta", {})))
    columns = {
        "id": [f"e{i}" for i in range(n)],
        "caption": [i % 3 for i in range(n)],
        "key": [f"k{i}" for i in range(n)],
    }
    columns |= {"shard": [i // half for i in range(n)], "row": [i % half for i in range(n)]}
    columns |= {"prior": [i >= n - prior for i in range(n)], "flipped": [False] * n}
    pyarrow.parquet.write_table(pyarrow.table(columns | more), folder / "examples.parquet")
    captions = {"caption": ["a", "b", "c"], "shard": [0, 0, 1], "row": [0, 1, 0]}
    pyarrow.parquet.write_table(pyarrow.table(captions), folder / "captions.parquet")
    return Examples(folder, config)


def test_a_batch_depends_on_seed_and_step_alone(tmp_path):
    cache = examples(tmp_path)
    first, again = cache.batch(5, 0, 1), cache.batch(5, 0, 1)
    assert torch.equal(first.noise, again.noise) and torch.equal(first.t, again.t)
    assert not torch.equal(first.noise, cache.batch(6, 0, 1).noise)
    assert not torch.equal(
        first.noise,
        examples(tmp_path, Train(validation_examples=0, batch_size=4, seed=1)).batch(5, 0, 1).noise,
    )


@pytest.mark.parametrize("objective", ["guidance", "finetune"])
def test_two_processes_share_the_batch_that_one_would_have(tmp_path, objective):
    how = {
        "objective": objective,
        "validation_examples": 0,
        "noise_offset": 0.1,
        "caption_dropout": 0.5,
    }
    how["guidance_scale_max"] = 5.0 if objective == "guidance" else 0.0
    whole = examples(tmp_path, Train(batch_size=8, **how), prior=2).batch(5, 0, 1)
    cache = examples(tmp_path, Train(batch_size=4, **how), prior=2)
    halves = [cache.batch(5, rank, 2) for rank in (0, 1)]
    for name in ("latents", "noise", "t", "context", "w", "weight", "example"):
        assert torch.equal(
            torch.cat([getattr(half, name) for half in halves]), getattr(whole, name)
        ), name


def test_pooled_texts_go_with_their_captions_where_there_are_such(tmp_path):
    plain = examples(tmp_path).batch(0, 0, 1)
    assert plain.pooled is None and plain.uncond_pooled is None
    for objective, how in {"guidance": {}, "finetune": {"caption_dropout": 0.5}}.items():
        config = Train(objective=objective, validation_examples=0, batch_size=64, **how)
        batch = examples(tmp_path, config, pooled=True).batch(0, 0, 1)
        assert torch.equal(batch.pooled, batch.context[:, 0, :4]) and torch.equal(
            batch.uncond_pooled, batch.uncond[:, 0, :4]
        )
        dropped = (batch.pooled == 0).all(1)
        assert dropped.any() == (objective == "finetune") and not dropped.all()


def test_an_example_keeps_its_own_caption(tmp_path):
    cache = examples(tmp_path, Train(validation_examples=0, batch_size=64))
    batch = cache.batch(0, 0, 1)
    for i, latent, context in zip(
        batch.example.tolist(), batch.latents, batch.context, strict=True
    ):
        assert torch.equal(
            latent, load_file(tmp_path / "latents" / f"l{i // 4}.safetensors")["latents"][i % 4]
        )
        shard, row = divmod(i % 3, 2)
        assert torch.equal(
            context, load_file(tmp_path / "texts" / f"t{shard}.safetensors")["embeddings"][row]
        )
    assert torch.equal(batch.uncond, torch.ones(64, 5, 6)), "the negative prompt, not the empty one"


def test_held_out_examples_are_never_trained_on_and_always_the_same(tmp_path):
    cache = examples(tmp_path, Train(validation_examples=2, batch_size=64))
    assert cache.held_out.tolist() == [6, 7] and cache.batch(0, 0, 1).example.max() < 6
    [first], [again] = cache.held_out_batches(), cache.held_out_batches()
    assert (
        first.example.tolist() == [6, 7]
        and torch.equal(first.noise, again.noise)
        and first.t.tolist() == [250, 750]
    )
    assert examples(tmp_path, Train(validation_examples=100)).held_out.tolist() == [6, 7], (
        "a quarter at most"
    )
    assert len(examples(tmp_path, Train(validation_examples=2, validation_steps=0)).own) == 8, (
        "nobody would look at them"
    )


def test_w_is_fixed_or_drawn_from_its_range(tmp_path):
    assert examples(tmp_path).batch(0, 0, 1).w.tolist() == [Train().guidance_scale] * 4
    w = (
        examples(
            tmp_path,
            Train(
                validation_examples=0, batch_size=256, guidance_scale=2.0, guidance_scale_max=6.0
            ),
        )
        .batch(0, 0, 1)
        .w
    )
    assert 2 <= w.min() < 2.3 and 5.7 < w.max() < 6 and abs(float(w.mean()) - 4) < 0.3


def test_finetune_drops_captions_and_mixes_the_prior_in_with_its_weight(tmp_path):
    how = {"objective": "finetune", "validation_examples": 0, "batch_size": 256}
    batch = examples(
        tmp_path, Train(caption_dropout=0.25, prior_loss_weight=0.5, **how), prior=3
    ).batch(0, 0, 1)
    dropped = (batch.context == 0).all(-1).all(-1)
    assert 0.15 < dropped.float().mean() < 0.35
    prior = batch.example >= 5
    assert (prior[1::2].all() and not prior[::2].any()) or (
        prior[::2].all() and not prior[1::2].any()
    )
    assert torch.equal(batch.weight, torch.where(prior, 0.5, 1.0))


def test_a_step_of_one_example_meets_the_prior_too(tmp_path):
    config = Train(objective="finetune", validation_examples=0, batch_size=1)
    cache = examples(tmp_path, config, prior=3)
    seen = [int(cache.batch(step, 0, 1).example) >= 5 for step in range(60)]
    assert 15 < sum(seen) < 45


def test_held_out_answers_are_of_all_draws(tmp_path):
    config = Train(teacher="cached", validation_examples=2, batch_size=64)
    [batch] = examples(tmp_path, config, answers=kept_answers(False)).held_out_batches()
    assert [int(t) // 10 % 2 for t in batch.t] == [0, 1]


def test_offset_noise_moves_whole_channels(tmp_path):
    """The mean of a channel of n pixels has a variance of 1/n + offset²."""
    how = {"objective": "finetune", "validation_examples": 0, "batch_size": 2000}
    means = [
        examples(tmp_path, Train(noise_offset=offset, **how)).batch(0, 0, 1).noise.mean((2, 3))
        for offset in (0.0, 1.0)
    ]
    assert [float(mean.var()) for mean in means] == pytest.approx([0.25, 1.25], rel=0.1)


def kept_answers(states: bool) -> dict[str, torch.Tensor]:
    """Two answers for each of eight examples, which tell their example and draw."""
    t = torch.arange(16).view(8, 2) * 10
    value = t.view(8, 2, 1, 1, 1).expand(8, 2, 4, 2, 2).half().contiguous()
    return {"t": t, "uncond": value, "cond": value + 1} | ({"x_t": value + 2} if states else {})


@pytest.mark.parametrize("states", [False, True])
def test_kept_answers_come_with_the_state_that_they_are_about(tmp_path, states):
    config = Train(teacher="cached", validation_examples=0, batch_size=64)
    batch = examples(tmp_path, config, answers=kept_answers(states)).batch(0, 0, 1)
    assert {int(t) // 10 % 2 for t in batch.t} == {0, 1}, "both draws"
    for i in range(64):
        example, t = int(batch.example[i]), int(batch.t[i])
        assert t // 20 == example
        assert float(batch.answers[0][i].mean()) == t and float(batch.answers[1][i].mean()) == t + 1
        if states:
            assert float(batch.x_t[i].mean()) == t + 2
        else:
            assert torch.equal(batch.noise[i], noise_like(7, f"k{example}", t // 10 % 2, (4, 2, 2)))
    assert states == (batch.x_t is not None)


def test_a_batch_is_of_one_shape_and_every_shape_has_its_turn(tmp_path):
    cache = examples(tmp_path, Train(validation_examples=2, batch_size=4), shape=(4, 4, 1))
    shapes = [tuple(cache.batch(step, 0, 1).latents.shape[1:]) for step in range(30)]
    assert set(shapes) == {(4, 2, 2), (4, 4, 1)} and shapes.count((4, 4, 1)) > 3
    assert [len(batch.example) for batch in cache.held_out_batches()] == [2]
    for step in range(30):
        batch = cache.batch(step, 0, 1)
        assert all(
            (place >= 4) == (batch.latents.shape[2] == 4) for place in batch.example.tolist()
        )


def test_the_mirrored_copy_of_a_held_out_example_is_not_trained_on_either(tmp_path):
    ids, flipped = ["a", "a", "b", "b", "c", "c", "d", "d"], [False, True] * 4
    cache = examples(tmp_path, Train(validation_examples=1, batch_size=4), id=ids, flipped=flipped)
    assert cache.held_out.tolist() == [6] and cache.own.tolist() == [0, 1, 2, 3, 4, 5]


def test_prompts_without_images_are_learned_from_by_kept_states_alone(tmp_path):
    config, meta = Train(teacher="cached", validation_examples=0, batch_size=4), {"images": False}
    batch = examples(tmp_path, config, answers=kept_answers(True), meta=meta).batch(0, 0, 1)
    assert not batch.latents.any() and batch.x_t is not None
    for states, teacher in (("data", "cached"), ("trajectories", "live")):
        told = {"files": {}, "images": False, "answers": {"states": states}}
        (tmp_path / "cache.json").write_text(json.dumps(told))
        with pytest.raises(
            DataError, match="has prompts without images; run .* with teacher_cache = 'traj"
        ):
            check_cache(tmp_path, Train(teacher=teacher))


def test_answers_that_are_not_there_are_said(tmp_path):
    (tmp_path / "cache.json").write_text('{"files": {}, "images": true, "answers": null}')
    check_cache(tmp_path, Train())
    with pytest.raises(
        DataError, match="has no answers of a teacher; run .* with teacher_cache = 'data'"
    ):
        check_cache(tmp_path, Train(teacher="cached"))
