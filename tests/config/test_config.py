import json
import os
import pickle
import re
from dataclasses import FrozenInstanceError, asdict, fields, replace

import pytest

from nbs_lib.config import REFERENCE_PROMPTS, Compare, MakeBase, Play, Prepare, Train
from nbs_lib.config.fields import describe
from nbs_lib.config.validation import ParameterError, as_parameters, from_notebook, from_parameters
from nbs_lib.files import ROOT


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (Train, {"stepz": 5}, "did you mean steps?"),
        (Train, {"qqqq": 5}, "has none of that name. It has run, "),
        (Train, {1: 5}, "has none of that name. It has run, "),
        (Train, {"steps": 10**400}, "allowed is a whole number"),
        (Train, {"steps": "1e400"}, "allowed is a whole number"),
        (Train, {"learning_rate": 10**400}, "allowed is 0, or a number from"),
        (Train, {"steps": "many"}, "steps: given 'many'; allowed is a whole number"),
        (Train, {"steps": 2.5}, "steps"),
        (Train, {"steps": True}, "steps"),
        (Train, {"steps": 0}, "steps: given 0; allowed is a whole number from 1 to 10,000,000"),
        (Train, {"learning_rate": "nan"}, "learning_rate"),
        (Train, {"learning_rate": float("inf")}, "learning_rate"),
        (Train, {"mixed_precision": "fp8"}, "one of auto, fp32, bf16, fp16"),
        (Train, {"zero_stage": 4}, "zero_stage: given 4; allowed is a whole number from 0 to 3"),
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
            "master_port: given 0; allowed is a whole number from 1024",
        ),
        (
            Train,
            {"node_rank": 2, "num_nodes": 2, "master_port": 29500},
            "node_rank: given 2; allowed is a whole number from 0 to 1",
        ),
        (Prepare, {"resolution": 63}, "a multiple of 8"),
        (Prepare, {"run": " "}, "run"),
        (Prepare, {"revision": "v1"}, "nothing with base embedded, which is not on the hub"),
        (MakeBase, {"family": "sdxl"}, "one of unet, flow"),
        (Prepare, {"source": 3}, "source: given 3; allowed is picturebook"),
        (Compare, {"prompts": "a cat"}, "prompts: given 'a cat'; allowed is a list of prompts"),
        (Compare, {"prompts": ["a cat", ""]}, "none of them empty"),
        (Compare, {"seeds": [-1]}, "seeds"),
        (Compare, {"seeds": ["x"]}, "seeds"),
        (
            Train,
            {"zero_stage": 2, "optimizer": "prodigy"},
            "zero_stage: given 2; allowed is 0 with optimizer prodigy",
        ),
        (
            Train,
            {"zero_stage": 1, "mixed_precision": "fp16", "method": "dora"},
            "allowed is 0 with mixed_precision fp16",
        ),
        (
            Train,
            {"learning_rate": 1e-3, "optimizer": "prodigy"},
            "from 0.1 to 10 with optimizer prodigy, or 0 for its own, 1",
        ),
        (
            Train,
            {"learning_rate": 1e-8, "lr_scheduler": "polynomial"},
            "a number above 1e-07 with lr_scheduler polynomial",
        ),
        (Train, {"validation_prompts": ["a cat", " "]}, "prompts, none of them empty"),
        (Train, {"adam_beta2": 1.0}, "adam_beta2: given 1.0"),
        (
            Train,
            {"lr_num_cycles": 2},
            "1 with lr_scheduler cosine, or more with cosine_with_restarts",
        ),
        (Train, {"lr_power": 2.0}, "1 with lr_scheduler cosine, or another with polynomial"),
        (Train, {"guidance_scale": 0.5}, "guidance_scale: given 0.5"),
        (
            Train,
            {"guidance_scale_max": 2.0, "guidance_scale": 3.0},
            "guidance_scale_max: given 2.0; allowed is a number from 3",
        ),
        (Train, {"guidance_scale_max": 5.0, "objective": "finetune"}, "finetune has no teacher"),
        (
            Train,
            {"teacher": "cached", "objective": "consistency"},
            "teacher: given 'cached'; allowed is live",
        ),
        (Train, {"few_steps": []}, "few_steps: given []; allowed is a list of different whole"),
        (Train, {"few_steps": [4, 9]}, "few_steps: given [4, 9]"),
        (Train, {"few_steps": [2, 2]}, "few_steps: given [2, 2]"),
        (
            Train,
            {"method": "full", "objective": "distribution"},
            "method: given 'full'; allowed is lora, rslora or dora",
        ),
        (
            Train,
            {"optimizer": "prodigy", "objective": "distribution"},
            "optimizer: given 'prodigy'; allowed is adamw",
        ),
        (
            Train,
            {"zero_stage": 3, "objective": "distribution"},
            "zero_stage: given 3; allowed is 0, 1 or 2",
        ),
        (
            Prepare,
            {"prior_preservation_max_examples": 0, "prior_preservation_source": "picturebook"},
            "prior_preservation_max_examples",
        ),
        (
            Play,
            {"guidance_scale": 0.5},
            "guidance_scale: given 0.5; allowed is a number from 1 to 100",
        ),
        (Play, {"prompts": [" "]}, "prompts: given [' ']; allowed is a list of one prompt or more"),
        (
            Play,
            {"contenders": ["tuned", "tuned"]},
            "contenders: given ['tuned', 'tuned']; allowed is a list of one or more",
        ),
    ],
)
def test_a_bad_parameter_is_refused_by_name_with_what_is_allowed(cls, values, message):
    with pytest.raises(ParameterError) as refused:
        from_parameters(cls, values)
    # all names of the dataclass follow, if none of them is near
    problem, _, names = str(refused.value).partition(" It has ")
    assert str(next(iter(values))) in problem and message in str(refused.value)
    assert len(problem) < 600
    assert bool(names) == ("It has" in message)


def test_text_is_converted_to_the_type_of_its_parameter():
    config = from_parameters(Train, {"learning_rate": "1e-4", "steps": "50", "rank": 8.0})
    assert (config.learning_rate, config.steps, config.rank) == (1e-4, 50, 8)
    assert isinstance(config.rank, int)
    assert from_parameters(Compare, {"seeds": ["1", 2]}).seeds == [1, 2]


def test_each_optimizer_has_its_own_learning_rate_which_is_recorded():
    assert (
        Train().learning_rate,
        Train(optimizer="prodigy").learning_rate,
        Train(learning_rate=2e-4).learning_rate,
    ) == (
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
    """Return the `globals()` of a notebook when its config cell runs, in that order."""
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


def test_a_result_of_a_notebook_is_no_parameter_when_its_config_cell_runs_again():
    assert from_notebook(
        Compare, names_of_a_kernel(steps=7) | {"rates": "rates.png", "steps": 8}
    ) == Compare(steps=8)


@pytest.mark.parametrize("cls", [Prepare, Train, Compare, Play, MakeBase])
def test_defaults_pass_their_own_checks(cls):
    assert from_parameters(cls, {}) == cls()


def test_a_config_is_a_frozen_dataclass():
    config = Train("outputs/x", rank=4)
    assert config == replace(Train("outputs/x"), rank=4) and asdict(config)["rank"] == 4
    assert (
        [field.name for field in fields(Train)]
        == list(asdict(config))
        == [parameter.name for parameter in describe(Train)]
    )
    with pytest.raises(FrozenInstanceError):
        config.rank = 8
    assert hash(MakeBase()) == hash(MakeBase()), "of plain values only"


@pytest.mark.parametrize(
    "values", [{"rank": "8"}, {"rank": 0}, {"rank": True}, {"rang": 8}, {"alpha": float("nan")}]
)
def test_the_dataclass_itself_refuses_a_wrong_value_in_one_sentence(values):
    with pytest.raises(ParameterError, match=f"^parameter {next(iter(values))}: .*") as refused:
        Train(**values)
    assert "\n" not in str(refused.value) and refused.value.__context__ is None
    with pytest.raises(ParameterError, match=next(iter(values))):
        replace(Train(), **values) if "rang" not in values else Train(**values)


def test_a_whole_number_means_a_number_and_half_characters_mean_nothing():
    assert isinstance(Train(alpha=4).alpha, float)
    with pytest.raises(ParameterError, match="in whole characters of UTF-8"):
        Prepare(source="\ud800")


@pytest.mark.parametrize("name", ["lora_dropout", "seed", "zero_stage"])
def test_a_parameter_that_the_cell_does_not_list_is_taken_too(name):
    assert getattr(from_notebook(Train, names_of_a_kernel(run="outputs/x", **{name: 0})), name) == 0


def test_contenders_and_axes_are_parsed_once():
    config = Compare(
        contenders=["unguided", "guided", "tuned", "guided at 3"],
        axes=["steps: 5 | 10", "w: 1 | 2"],
    )
    assert config.parsed_contenders["guided at 3"].scale == 3 and config.grid_axes[0].values == (
        5,
        10,
    )
    assert config.grid_axes is config.grid_axes and Compare().grid_axes == []
    assert replace(config, axes=[]).grid_axes == [] and "grid_axes" not in as_parameters(config)


def test_no_prompts_are_those_of_the_reference_which_are_recorded():
    assert as_parameters(Compare())["prompts"] == REFERENCE_PROMPTS and Compare(
        prompts=["a cat"]
    ).prompts == ["a cat"]


def test_prompts_of_a_file_are_its_lines_that_are_not_empty_and_no_remarks(tmp_path):
    file = tmp_path / "prompts.txt"
    text = "\ufeff# of June\r\nA red  cat\r\n\r\n  A blue c\u00e4t \r\n # more\r\nA cat #2"
    file.write_bytes(text.encode())
    config = Compare(prompts_file=str(file))
    assert config.file_prompts == ["A red cat", "A blue c\u00e4t", "A cat #2"]
    assert Compare().file_prompts == [] and "file_prompts" not in as_parameters(config)
    relative = os.path.relpath(file, ROOT)
    assert Compare(prompts_file=relative).file_prompts == config.file_prompts


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "there is no such file"),
        ("folder", "Is a directory"),
        (b"", "it has no prompts"),
        (b"\xef\xbb\xbf\n# a remark\n \t\n", "it has no prompts"),
        (b"A caf\xe9\n", "is no UTF-8 text"),
        (b"\x89PNG\r\n\x1a\n", "is no UTF-8 text"),
        (b"A cat\0\n", "is no UTF-8 text"),
    ],
)
def test_a_file_without_prompts_is_refused_in_a_sentence(tmp_path, content, problem):
    file = tmp_path / "prompts.txt"
    if content == "folder":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(ParameterError) as failure:
        Compare(prompts_file=str(file)).file_prompts  # noqa: B018
    message = str(failure.value)
    assert message.startswith(f"parameter prompts_file: given {str(file)!r}: ")
    assert problem in message and "a prompt on each line" in message and "\n" not in message


def test_prompts_of_benchmarks_are_read_as_they_are_published(tmp_path):
    geneval = tmp_path / "evaluation_metadata.jsonl"
    rows = [
        {"tag": "single_object", "include": [{"class": "bench"}], "prompt": "a photo of a bench"},
        {"tag": "counting", "prompt": "a photo of\ntwo c\u00e4ts "},
        {"tag": "colors", "prompt": "# is no remark here"},
    ]
    geneval.write_text("\n\n".join(map(json.dumps, rows)) + "\n")
    assert Compare(prompts_file=str(geneval)).file_prompts == [
        "a photo of a bench",
        "a photo of two c\u00e4ts",
        "# is no remark here",
    ]
    parti = tmp_path / "PartiPrompts.TSV"
    parti.write_text(
        "Prompt\tCategory\tChallenge\tNote\n"
        'a sign that says "Hello"\tWorld Knowledge\tWriting & Symbols\t\n'
        '"a cat, a ""dog"""\tAnimals\n'
        "\tAbstract\n"
        "bond\n"
    )
    assert Compare(prompts_file=str(parti)).file_prompts == [
        'a sign that says "Hello"',
        'a cat, a "dog"',
        "bond",
    ]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", '{"prompt": "a cat"}\n{"text": "a dog"}\n', "its line 2 is no JSON object"),
        ("a.jsonl", '{"prompt": 5}', "its line 1 is no JSON object with a text in `prompt`"),
        ("a.jsonl", "[" * 100_000, "its line 1 is no JSON object"),
        ("a.jsonl", '["a cat"]', "its line 1 is no JSON object"),
        ("a.jsonl", "\n", "it has no prompts"),
        ("a.tsv", "", "names no column `Prompt`"),
        ("a.tsv", "a cat\nb dog\n", "names no column `Prompt`"),
        ("a.tsv", "Prompt\tNote\n", "it has no prompts"),
    ],
)
def test_a_benchmark_of_another_form_is_refused_in_a_sentence(tmp_path, name, content, problem):
    (tmp_path / name).write_text(content)
    with pytest.raises(ParameterError, match=re.escape(problem)):
        Compare(prompts_file=str(tmp_path / name)).file_prompts  # noqa: B018


def test_scores_name_their_models():
    config = Compare(scores=["pickscore: yuvalkirstain/PickScore_v1", " cmmd:C:/models/clip "])
    expected = {"pickscore": "yuvalkirstain/PickScore_v1", "cmmd": "C:/models/clip"}
    assert config.parsed_scores == expected and Compare().parsed_scores == {}
    for texts in (["lpips: x"], ["cmmd"], ["cmmd: "], ["cmmd: a", "cmmd: b"]):
        with pytest.raises(ParameterError, match="parameter scores: .* NAME one of pickscore"):
            Compare(scores=texts)


def test_an_error_names_the_stage_of_its_parameter_also_after_pickling():
    for values in ({"stepz": 5}, {"steps": 0}, {"zero_stage": 2, "optimizer": "prodigy"}):
        with pytest.raises(ParameterError, match=r"^parameter train\.(stepz|steps|zero_stage): "):
            from_parameters(Train, values, "train.")
    with pytest.raises(ParameterError) as refused:
        from_parameters(Compare, {"axes": ["steps"]}, "compare.")
    assert str(refused.value).startswith("parameter compare.axes: ")
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
