import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file, save_file

from nbs_lib.config import Train
from nbs_lib.diffusion import noise_like
from nbs_lib.train.data.cache_reader import DataError, check_cache
from nbs_lib.train.data.dataset import Examples

ONLY = Train(validation_examples=0, batch_size=4)


def examples(
    folder: Path,
    config: Train = ONLY,
    n: int = 8,
    prior: int = 0,
    answers: dict | None = None,
    **more,
) -> Examples:
    """Return a cache of n examples with three captions in two shards.

    prior: number of prior-preservation examples, the last ones.
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
            tensors = {
                name: part[half * shard : half * (shard + 1)].contiguous()
                for name, part in answers.items()
            }
            save_file(tensors, folder / "answers" / f"a{shard}.safetensors")
    texts = torch.randn(3, 5, 6, generator=generator)
    away = {"empty": torch.zeros(5, 6), "negative": torch.ones(5, 6)}
    pooled = more.pop("pooled", False)
    for shard, rows in enumerate((texts[:2], texts[2:])):
        tensors = {"embeddings": rows.contiguous()} | (
            {"pooled": rows[:, 0, :4].clone()} if pooled else {}
        )
        save_file(tensors, folder / "texts" / f"t{shard}.safetensors")
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
    options = {
        "objective": objective,
        "validation_examples": 0,
        "noise_offset": 0.1,
        "caption_dropout": 0.5,
    }
    options["guidance_scale_max"] = 5.0 if objective == "guidance" else 0.0
    combined = examples(tmp_path, Train(batch_size=8, **options), prior=2).batch(5, 0, 1)
    cache = examples(tmp_path, Train(batch_size=4, **options), prior=2)
    halves = [cache.batch(5, rank, 2) for rank in (0, 1)]
    for name in ("latents", "noise", "t", "context", "w", "weight", "example"):
        assert torch.equal(
            torch.cat([getattr(half, name) for half in halves]), getattr(combined, name)
        ), name


def few_step_examples(folder: Path, batch_size: int, **options) -> Examples:
    config = Train(
        objective="distribution", validation_examples=0, batch_size=batch_size, **options
    )
    return examples(folder, config, n=32)


def test_rows_of_a_few_step_batch_are_successive_steps_of_trajectories(tmp_path):
    cache = few_step_examples(tmp_path, 12, few_steps=[4, 2])
    for step in range(12):
        batch = cache.batch(step, 0, 1)
        steps, first, trajectory, position, renoise = batch.rollout
        times = torch.tensor({4: [999, 749, 499, 249], 2: [999, 499]}[steps])
        assert (position.diff() % steps == 1 % steps).all()
        assert trajectory.tolist() == sorted(trajectory.tolist()) and trajectory[0] == 0
        assert first.tolist() == [trajectory.tolist().index(i) for i in range(len(first))]
        for name in ("noise", "context", "w", "example"):
            rows = getattr(batch, name)
            assert torch.equal(rows, rows[first][trajectory]), name
        assert len({float(row.sum()) for row in renoise}) == 12, "each row has its own"
        # between its step and the next one
        assert (batch.t <= times[position]).all()
        after = torch.cat([times[1:], torch.zeros(1, dtype=torch.int64)])[position]
        assert (batch.t >= after).all()


def test_all_steps_are_learned_at_batch_size_1(tmp_path):
    cache = few_step_examples(tmp_path, 1, few_steps=[4])
    positions = [int(cache.batch(step, 0, 1).rollout.position) for step in range(60)]
    assert {positions.count(i) > 5 for i in range(4)} == {True}


def test_a_single_step_is_compared_at_all_levels(tmp_path):
    batch = few_step_examples(tmp_path, 400, few_steps=[1]).batch(0, 0, 1)
    assert batch.rollout.steps == 1 and not batch.rollout.position.any()
    assert batch.t.min() < 50 and batch.t.max() > 950


def test_matching_above_reaches_pure_noise(tmp_path):
    cache = few_step_examples(tmp_path, 400, few_steps=[2], matching_levels="above")
    batch = cache.batch(0, 0, 1)
    first = batch.rollout.position == 0
    assert batch.t[first].min() >= 499 and batch.t[~first].max() > 950 and batch.t.min() < 50


def test_processes_share_the_trajectories_that_one_would_have(tmp_path):
    combined = few_step_examples(tmp_path, 12, few_steps=[8, 4]).batch(5, 0, 1)
    cache = few_step_examples(tmp_path, 4, few_steps=[8, 4])
    shares = [cache.batch(5, rank, 3) for rank in range(3)]
    for name in ("noise", "t", "context", "w", "example"):
        assert torch.equal(
            torch.cat([getattr(share, name) for share in shares]), getattr(combined, name)
        ), name
    for name in ("position", "noise"):
        joined = torch.cat([getattr(share.rollout, name) for share in shares])
        assert torch.equal(joined, getattr(combined.rollout, name)), name


def test_pooled_texts_belong_to_their_captions(tmp_path):
    plain = examples(tmp_path).batch(0, 0, 1)
    assert plain.pooled is None and plain.uncond_pooled is None
    for objective, options in {"guidance": {}, "finetune": {"caption_dropout": 0.5}}.items():
        config = Train(objective=objective, validation_examples=0, batch_size=64, **options)
        batch = examples(tmp_path, config, pooled=True).batch(0, 0, 1)
        assert torch.equal(batch.pooled, batch.context[:, 0, :4]) and torch.equal(
            batch.uncond_pooled, batch.uncond[:, 0, :4]
        )
        dropped = (batch.pooled == 0).all(1)
        assert dropped.any() == (objective == "finetune") and not dropped.all()


def test_an_example_has_its_caption(tmp_path):
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
    assert (
        len(examples(tmp_path, Train(validation_examples=2, validation_steps=0)).training) == 8
    ), "nobody would look at them"


def test_w_is_fixed_or_random_in_its_range(tmp_path):
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


def test_finetune_drops_captions_and_weighs_the_prior(tmp_path):
    options = {"objective": "finetune", "validation_examples": 0, "batch_size": 256}
    batch = examples(
        tmp_path, Train(caption_dropout=0.25, prior_loss_weight=0.5, **options), prior=3
    ).batch(0, 0, 1)
    dropped = (batch.context == 0).all(-1).all(-1)
    assert 0.15 < dropped.float().mean() < 0.35
    prior = batch.example >= 5
    assert (prior[1::2].all() and not prior[::2].any()) or (
        prior[::2].all() and not prior[1::2].any()
    )
    assert torch.equal(batch.weight, torch.where(prior, 0.5, 1.0))


def test_logit_normal_timesteps_of_finetune_gather_in_the_middle(tmp_path):
    options = {"objective": "finetune", "validation_examples": 0, "batch_size": 4000}
    cache = examples(tmp_path, Train(timestep_sampling="logit_normal", **options))
    t = cache.batch(0, 0, 1).t.double() / 1000
    # the logits are standard normal: two thirds of them within 1 of the middle
    logits = torch.logit(t.clamp(1e-3, 1 - 1e-3))
    assert abs(float(logits.mean())) < 0.1 and 0.9 < float(logits.std()) < 1.1
    assert 0.65 < float((logits.abs() < 1).double().mean()) < 0.72
    assert not torch.equal(cache.batch(1, 0, 1).t, cache.batch(0, 0, 1).t)


def test_steps_of_one_example_reach_the_prior(tmp_path):
    config = Train(objective="finetune", validation_examples=0, batch_size=1)
    cache = examples(tmp_path, config, prior=3)
    is_prior = [int(cache.batch(step, 0, 1).example) >= 5 for step in range(60)]
    assert 15 < sum(is_prior) < 45


def test_held_out_examples_use_all_cached_draws(tmp_path):
    config = Train(teacher="cached", validation_examples=2, batch_size=64)
    [batch] = examples(tmp_path, config, answers=cached_answers(False)).held_out_batches()
    assert [int(t) // 10 % 2 for t in batch.t] == [0, 1]


def test_offset_noise_moves_whole_channels(tmp_path):
    """The mean of a channel of n pixels has a variance of 1/n + offset²."""
    options = {"objective": "finetune", "validation_examples": 0, "batch_size": 2000}
    means = [
        examples(tmp_path, Train(noise_offset=offset, **options)).batch(0, 0, 1).noise.mean((2, 3))
        for offset in (0.0, 1.0)
    ]
    assert [float(mean.var()) for mean in means] == pytest.approx([0.25, 1.25], rel=0.1)


def cached_answers(states: bool) -> dict[str, torch.Tensor]:
    """Return two answers for each of eight examples, whose values name example and draw."""
    t = torch.arange(16).view(8, 2) * 10
    value = t.view(8, 2, 1, 1, 1).expand(8, 2, 4, 2, 2).half().contiguous()
    return {"t": t, "uncond": value, "cond": value + 1} | ({"x_t": value + 2} if states else {})


@pytest.mark.parametrize("states", [False, True])
def test_cached_answers_belong_to_their_states(tmp_path, states):
    config = Train(teacher="cached", validation_examples=0, batch_size=64)
    batch = examples(tmp_path, config, answers=cached_answers(states)).batch(0, 0, 1)
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


def test_a_batch_has_one_shape_and_every_shape_is_used(tmp_path):
    cache = examples(tmp_path, Train(validation_examples=2, batch_size=4), shape=(4, 4, 1))
    shapes = [tuple(cache.batch(step, 0, 1).latents.shape[1:]) for step in range(30)]
    assert set(shapes) == {(4, 2, 2), (4, 4, 1)} and shapes.count((4, 4, 1)) > 3
    assert [len(batch.example) for batch in cache.held_out_batches()] == [2]
    for step in range(30):
        batch = cache.batch(step, 0, 1)
        assert all(
            (index >= 4) == (batch.latents.shape[2] == 4) for index in batch.example.tolist()
        )


def test_mirrored_copies_of_held_out_examples_are_not_trained_on(tmp_path):
    ids, flipped = ["a", "a", "b", "b", "c", "c", "d", "d"], [False, True] * 4
    cache = examples(tmp_path, Train(validation_examples=1, batch_size=4), id=ids, flipped=flipped)
    assert cache.held_out.tolist() == [6] and cache.training.tolist() == [0, 1, 2, 3, 4, 5]


def test_prompts_without_images_need_cached_states(tmp_path):
    config, meta = Train(teacher="cached", validation_examples=0, batch_size=4), {"images": False}
    batch = examples(tmp_path, config, answers=cached_answers(True), meta=meta).batch(0, 0, 1)
    assert not batch.latents.any() and batch.x_t is not None
    for states, teacher in (("data", "cached"), ("trajectories", "live")):
        write_metadata(tmp_path, images=False, answers={"states": states})
        with pytest.raises(DataError, match="without images.* teacher_cache = 'trajectories'"):
            check_cache(tmp_path, Train(teacher=teacher))


def write_metadata(folder: Path, **values):
    """Write cache.json of a cache without files."""
    numbers = ("resolution", "examples", "captions", "captions_cut")
    empty = {name: 0 for name in numbers} | {name: "" for name in ("key", "base", "base_hash")}
    empty |= {name: [] for name in ("text_shape", "shards", "texts")}
    empty |= {name: {} for name in ("shapes", "spaces", "files")}
    (folder / "cache.json").write_text(json.dumps(empty | values))


def test_missing_teacher_answers_are_named(tmp_path):
    write_metadata(tmp_path, images=True, answers=None)
    check_cache(tmp_path, Train())
    with pytest.raises(DataError, match="no answers of a teacher.* teacher_cache = 'data'"):
        check_cache(tmp_path, Train(teacher="cached"))
