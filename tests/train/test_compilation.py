"""The compiled denoiser of a training: equal numbers, a graph for each role, resumed exactly."""

import pytest
import torch
from torch._inductor.runtime.cache_dir_utils import cache_dir

from nbs_lib.config import Train
from nbs_lib.config.validation import ParameterError
from nbs_lib.files import file_hash, read_jsonl
from nbs_lib.models import find_base
from nbs_lib.models._torch_compilers import compile_blocks
from nbs_lib.models.lora.metadata import LORA_FILE
from nbs_lib.models.lora.verification import predict_fixed_noise
from nbs_lib.run.run import Run
from nbs_lib.train.compilation import CACHE_VARIABLE, keep_compiled_code
from nbs_lib.train.networks import build_networks
from nbs_lib.train.student import Student

SMALL = {
    "steps": 4,
    "batch_size": 2,
    "num_processes": 1,
    "mixed_precision": "fp32",
    "log_every": 1,
    "checkpointing_steps": 2,
    "validation_steps": 0,
}


@pytest.fixture(scope="module")
def tiny(tiny_base, tmp_path_factory):
    """The smallest base."""
    return find_base(str(tiny_base("sd1", tmp_path_factory.mktemp("base") / "base")))


def new_student(base, **options) -> Student:
    networks = build_networks(base, Train(rank=2, **options))
    for seed, parameter in enumerate(networks.parameters):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
        parameter.data.copy_(0.05 * noise)
    dtype = torch.bfloat16 if options["mixed_precision"] == "bf16" else torch.float32
    return Student(networks.denoiser, base.noise_schedule(), base.predict, dtype)


def step(student: Student, rows: int = 2) -> list[torch.Tensor]:
    """Return the gradients of the distance between student and teacher."""
    config = student.denoiser.config
    generator = torch.Generator().manual_seed(0)
    side = config.sample_size
    x_t = torch.randn(rows, config.in_channels, side, side, generator=generator)
    context = torch.randn(rows, 7, config.cross_attention_dim, generator=generator)
    t = torch.arange(rows) * 300 + 100
    target = student.base_prediction(x_t.repeat(2, 1, 1, 1), t.repeat(2), context.repeat(2, 1, 1))
    loss = (student(x_t, t, context) - target[:rows]).square().mean()
    parameters = [p for p in student.parameters() if p.requires_grad]
    return list(torch.autograd.grad(loss, parameters))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"mixed_precision": "bf16"},
        {"mixed_precision": "fp32", "gradient_checkpointing": True, "compile": "whole"},
    ],
)
def test_teacher_and_student_are_graphs_of_one_unet_without_breaks_or_recompiles(
    tiny, one_thread, options
):
    eager = step(new_student(tiny, **options))
    student = new_student(tiny, **options)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    # the graphs alone: no C++ is compiled
    student.denoiser.compile(backend="aot_eager", dynamic=False)
    student.compiled = True
    compiled = step(student)
    statistics = torch._dynamo.utils.counters
    assert statistics["stats"]["unique_graphs"] == 2 and not statistics["graph_break"]
    for _ in range(2):
        assert all(map(torch.equal, step(student), compiled))
    assert statistics["stats"]["unique_graphs"] == 2
    relative = 0.03 if options["mixed_precision"] == "bf16" else 1e-4
    for one, other in zip(compiled, eager, strict=True):
        assert float(other.abs().sum()) > 0
        assert float((one - other).norm()) < relative * float(other.norm())
    # validation passes are eager, whatever their shape
    student.eval()
    step(student, rows=3)
    assert statistics["stats"]["unique_graphs"] == 2


@pytest.mark.parametrize("kind", ["sd1", "sd3"])
def test_blocks_of_a_unet_and_of_a_transformer_are_compiled(tiny_base, tmp_path, one_thread, kind):
    base = find_base(str(tiny_base(kind, tmp_path / "base")))
    denoiser = base.denoiser()
    expected = predict_fixed_noise(denoiser, base)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compile_blocks(denoiser, backend="aot_eager", dynamic=False)
    torch.testing.assert_close(predict_fixed_noise(denoiser, base), expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


@pytest.mark.slow
def test_a_compiled_training_is_resumed_bit_for_bit_and_says_how_long_it_compiled(
    new_run, prepared_tiny, train, interrupted
):
    eager, run = new_run(prepared_tiny), new_run(prepared_tiny)
    train(Train(str(eager.folder), **SMALL))
    config = Train(str(run.folder), **SMALL, compile="blocks")
    train(config)
    again = interrupted(run)
    train(Train(str(again.folder), **SMALL, compile="blocks"))
    assert again.stage_record("train")["resumed_from"] == 2
    assert file_hash(again.adapter / LORA_FILE) == file_hash(run.adapter / LORA_FILE)
    assert losses(run) == pytest.approx(losses(eager), rel=1e-4)
    seconds = [line["compile_seconds"] for line in read_jsonl(run.metrics)]
    assert seconds[0] > 0 and seconds == sorted(seconds)
    assert "compile_seconds" not in read_jsonl(eager.metrics)[0]
    assert ", compiled in " in (run.adapter / "README.md").read_text("utf-8")
    assert "compiled" not in (eager.adapter / "README.md").read_text("utf-8")


def losses(run: Run) -> list[float]:
    return [line["loss"] for line in read_jsonl(run.metrics)]


def test_compiled_code_is_kept_between_trainings(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(CACHE_VARIABLE, "/mine")
    keep_compiled_code()
    assert cache_dir() == "/mine", "a user's own folder stays"
    monkeypatch.delenv(CACHE_VARIABLE)
    keep_compiled_code()
    assert cache_dir() == str(tmp_path / "onepass" / "inductor")


def test_zero_3_is_not_compiled():
    with pytest.raises(ParameterError, match="compile.*off with DeepSpeed's zero_stage 3"):
        Train(compile="whole", zero_stage=3)
    assert Train(compile="whole", zero_stage=3, deepspeed=False).compile == "whole"
