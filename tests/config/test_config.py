import pytest

from nbs_lib.config import Compare, MakeBase, Play, Prepare, Train
from nbs_lib.config.validation import ParameterError, as_parameters, from_notebook, from_parameters


@pytest.mark.parametrize(
    ("cls", "given", "said"),
    [
        (Train, {"stepz": 5}, "did you mean steps?"),
        (Train, {"qqqq": 5}, "has none of that name. It has run, "),
        (Train, {1: 5}, "has none of that name. It has run, "),
        (Train, {"steps": 10**400}, "allowed is a whole number"),
        (Train, {"steps": "1e400"}, "allowed is a whole number"),
        (Train, {"learning_rate": 10**400}, "allowed is a number"),
        (Train, {"steps": "many"}, "steps: given 'many'; allowed is a whole number"),
        (Train, {"steps": 2.5}, "steps"),
        (Train, {"steps": True}, "steps"),
        (Train, {"steps": 0}, "steps: given 0; allowed is a number from 1"),
        (Train, {"learning_rate": "nan"}, "learning_rate"),
        (Train, {"learning_rate": float("inf")}, "learning_rate"),
        (Train, {"mixed_precision": "fp8"}, "one of auto, fp32, bf16, fp16"),
        (Train, {"zero_stage": 4}, "one of 0, 1, 2, 3"),
        (
            Train,
            {"offload": True, "zero_stage": 0},
            "offload: given True; allowed is false, or true with DeepSpeed",
        ),
        (Train, {"offload": True}, "its zero_stage 1, 2 or 3"),
        (
            Train,
            {"launcher": "mpi"},
            "launcher: given 'mpi'; allowed is one of notebook, subprocess",
        ),
        (
            Train,
            {"master_port": 0, "num_nodes": 2},
            "master_port: given 0; allowed is a number from 1024",
        ),
        (
            Train,
            {"node_rank": 2, "num_nodes": 2, "master_port": 29500},
            "node_rank: given 2; allowed is a number from 0 to 1",
        ),
        (Prepare, {"resolution": 63}, "a multiple of 8"),
        (Prepare, {"run": " "}, "run"),
        (Prepare, {"revision": "v1"}, "nothing with base embedded"),
        (Prepare, {"source": 3}, "text"),
        (Compare, {"prompts": "a cat"}, "a list of str"),
        (Compare, {"prompts": []}, "prompts"),
        (Compare, {"seeds": [-1]}, "seeds"),
        (Compare, {"seeds": ["x"]}, "seeds"),
        (
            Train,
            {"zero_stage": 2, "optimizer": "prodigy"},
            "zero_stage: given 2; allowed is 0 with optimizer prodigy",
        ),
        (Train, {"zero_stage": 1, "mixed_precision": "fp16"}, "allowed is 0 with precision fp16"),
        (
            Train,
            {"learning_rate": 1e-3, "optimizer": "prodigy"},
            "from 0.1 to 10 with optimizer prodigy, or 0 for its own, 1",
        ),
        (
            Train,
            {"learning_rate": 1e-8, "lr_scheduler": "polynomial"},
            "a number above 1e-07 with schedule polynomial",
        ),
        (Train, {"validation_prompts": ["a cat", " "]}, "prompts, none of them empty"),
        (Train, {"adam_beta2": 1.0}, "adam_beta2: given 1.0"),
        (Train, {"lr_num_cycles": 2}, "1 with schedule cosine, or more with cosine_with_restarts"),
        (Train, {"lr_power": 2.0}, "1 with schedule cosine, or another with polynomial"),
        (Train, {"guidance_scale": 0.5}, "guidance: given 0.5"),
        (
            Train,
            {"guidance_scale_max": 2.0, "guidance_scale": 3.0},
            "guidance_max: given 2.0; allowed is a number from 3",
        ),
        (Train, {"guidance_scale_max": 5.0, "objective": "finetune"}, "finetune has no teacher"),
        (
            Train,
            {"teacher": "cached", "objective": "consistency"},
            "teacher: given 'cached'; allowed is live",
        ),
        (
            Prepare,
            {"prior_preservation_max_examples": 0, "prior_preservation_source": "picturebook"},
            "prior_preservation_max_examples",
        ),
        (Play, {"guidance_scale": 0.5}, "guidance: given 0.5; allowed is a number from 1 to 100"),
        (Play, {"prompts": [" "]}, "prompts: given [' ']; allowed is one prompt or more"),
        (
            Play,
            {"contenders": ["tuned", "tuned"]},
            "contenders: given ['tuned', 'tuned']; allowed is one or more",
        ),
    ],
)
def test_a_bad_parameter_is_refused_by_name_with_what_is_allowed(cls, given, said):
    with pytest.raises(ParameterError) as refused:
        from_parameters(cls, given)
    told, _, names = str(refused.value).partition(
        " It has "
    )  # all that there are, where none is near
    assert str(next(iter(given))) in told and said in str(refused.value) and len(told) < 600
    assert bool(names) == ("It has" in said)


def test_text_means_what_people_mean():
    config = from_parameters(Train, {"learning_rate": "1e-4", "steps": "50", "rank": 8.0})
    assert (config.learning_rate, config.steps, config.rank) == (1e-4, 50, 8)
    assert isinstance(config.rank, int)
    assert from_parameters(Compare, {"seeds": ["1", 2]}).seeds == [1, 2]


def test_each_optimizer_has_its_own_learning_rate_which_is_recorded():
    assert (Train().lr, Train(optimizer="prodigy").lr, Train(learning_rate=2e-4).lr) == (
        1e-3,
        1.0,
        2e-4,
    )
    assert as_parameters(Train(optimizer="prodigy"))["learning_rate"] == 1.0
    assert from_parameters(Train, as_parameters(Train(optimizer="prodigy"))) == Train(
        optimizer="prodigy"
    )


def test_fp16_and_prodigy_need_no_other_parameter():
    assert Train(mixed_precision="fp16").zero_stage == Train(optimizer="prodigy").zero_stage == 0


def names_of_a_kernel(**parameters) -> dict:
    """What `globals()` has in a notebook when its config cell runs, in that order."""
    return {
        "_": "",
        "In": ["", "x = 1"],
        "Out": {},
        "exit": exit,
        **parameters,
        "Path": object,
        "from_notebook": from_notebook,
    }


def test_a_notebook_s_names_become_its_config():
    assert from_notebook(Train, names_of_a_kernel(run="outputs/x", steps=7)) == Train(
        run="outputs/x", steps=7
    )


@pytest.mark.parametrize("value", [5, 0.5, True, "x", [1], {"a": 1}, None])
def test_a_name_that_is_no_parameter_is_refused_in_a_notebook(value):
    with pytest.raises(ParameterError, match="stepz: .* did you mean steps?"):
        from_notebook(Train, names_of_a_kernel(run="outputs/x", stepz=value))


def test_what_a_notebook_bound_later_is_no_parameter_when_its_config_cell_runs_again():
    assert from_notebook(
        Compare, names_of_a_kernel(steps=7) | {"rates": "rates.png", "steps": 8}
    ) == Compare(steps=8)


@pytest.mark.parametrize("cls", [Prepare, Train, Compare, Play, MakeBase])
def test_defaults_pass_their_own_checks(cls):
    assert from_parameters(cls, {}) == cls()
