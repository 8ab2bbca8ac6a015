"""Shared fixtures: run folders, a compared run, and stages that run in a fresh process."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nbs_lib.config import Compare, Prepare, Train
from nbs_lib.files import ROOT
from nbs_lib.run.run import Run

# the assertions, such as two processes and equal bits, hold on a CPU
os.environ["CUDA_VISIBLE_DEVICES"] = ""

W = 2.5  # the guidance scale that the adapter says it was trained for
OUTPUTS = pytest.StashKey[dict[str, int]]()
HOSTILE = "It's </code> & <script>name = 1</script>"  # if executed, it sets window.name


def pytest_collection_modifyitems(items: list[pytest.Item]):
    """Move slow files to the front, so that none of them starts when all others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def outputs_state() -> dict[str, int]:
    """Return the modification times of the entries in the checkout's outputs/ and its caches."""
    folders = [ROOT / "outputs", ROOT / "outputs" / "cache"]
    paths = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    return {str(path): path.lstat().st_mtime_ns for path in paths if path.name != "cache"}


def pytest_sessionstart(session: pytest.Session):
    if not hasattr(session.config, "workerinput"):  # only in the process that starts the workers
        session.config.stash[OUTPUTS] = outputs_state()


def pytest_sessionfinish(session: pytest.Session):
    """Fail if the tests have left something among the user's runs."""
    if (before := session.config.stash.get(OUTPUTS, None)) is not None and (
        after := outputs_state()
    ) != before:
        changed = sorted(
            name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
        )
        print(
            "\nFAILED: the tests, or a run beside them, have changed outputs/: "
            + ", ".join(changed)
        )
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set the number of torch's threads, here and in processes that a test starts."""
    import torch  # here and below: most tests do not need it

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", str(count))
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Use one thread: on a busy machine, threads that wait for each other took 30 times as long."""
    with threads(1):
        yield


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Return a run's folder, in a path with a space and letters beyond ASCII."""
    return tmp_path / "my rüns" / "outputs" / "tiny"


@pytest.fixture(scope="session")
def python():
    """Return a function that runs Python source in a separate process.

    Forks and kills happen there, not in the test runner.
    """

    def call(source: str, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess:
        command = [sys.executable, "-W", "ignore", "-c", source, *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)

    return call


PAGE = """
import dataclasses, os, signal, sys, time
from nbs_lib.config import {cls}
from nbs_lib.config.validation import from_notebook
from nbs_lib.run.run import Run
config = from_notebook({cls}, globals())
run = Run(config.run)
exec(os.environ.get("BEFORE_{stage}", ""))
with run.stage(config) as record:
    exec(os.environ.get("DOES_{stage}", ""))
    parameters = str(dataclasses.replace(config, run="anywhere"))
    (run.folder / "{stage}.txt").write_text(os.environ.get("LEAVES_{stage}", parameters))
    record["outputs"] = ["{stage}.txt"]
    record |= {{"loss": getattr(config, "rank", 0) / 100, "seen": getattr(config, "seed", 0)}}
print("{stage} came to its end")
"""
"""The code of a stage in a project with stand-in notebooks."""


class Project:
    """A copy of the library with stand-in notebooks.

    Each notebook has the parameters of the real one, and keeps a stage's record. Variables in the
    environment of a command change a stage, here `train`:
    BEFORE_train: source that runs before the stage keeps a record.
    DOES_train: source that runs in the middle of the stage.
    LEAVES_train: text that the stage writes, instead of its parameters.
    """

    def __init__(self, folder: Path):
        import nbformat

        from nbs_lib.config import STAGES

        self.folder, self.outputs = folder, folder / "outputs"
        ignored = shutil.ignore_patterns("__pycache__", "base", "make")
        shutil.copytree(ROOT / "nbs_lib", folder / "nbs_lib", ignore=ignored)
        shutil.copytree(ROOT / "notebooks" / "recipes", folder / "notebooks" / "recipes")
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, folder / name)
        for number, (stage, cls) in enumerate(STAGES.items(), 1):
            page = nbformat.read(ROOT / "notebooks" / f"{number}_{stage}.ipynb", 4)
            page.cells[2:] = [nbformat.v4.new_code_cell(PAGE.format(cls=cls.__name__, stage=stage))]
            nbformat.write(page, folder / "notebooks" / f"{number}_{stage}.ipynb")

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        """Start `onepass`."""
        command = [sys.executable, "-W", "ignore", "-m", "nbs_lib", *map(str, arguments)]
        variables = os.environ | {"PYTHONPATH": str(self.folder), "COLUMNS": "200"} | environment
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=variables, **pipes)

    def onepass(
        self, *arguments: str, status: int = 0, **environment: str
    ) -> subprocess.CompletedProcess:
        """Run `onepass` to its end, and check its exit status."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=300)
        assert process.returncode == status, f"{process.returncode}: {out}{err}"
        assert "Traceback" not in err
        return subprocess.CompletedProcess(arguments, status, out, err)

    def record(self, name: str) -> dict:
        return json.loads((self.outputs / name / "run.json").read_text())


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Project:
    """Return a project, in a path with a space, that tests share under different run names."""
    return Project(tmp_path_factory.mktemp("a projèct") / "of its own")


class Kernel:
    """A process from a fork server: like a fresh kernel, with the libraries already imported."""

    SOURCE = """
import ctypes, os, warnings
from nbs_lib.config import Prepare
os.environ.update(environment)
os.setsid()
file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(file, 1), os.dup2(file, 2)
if gpus:
    del os.environ["CUDA_VISIBLE_DEVICES"]
if network and ctypes.CDLL(None).setns(os.open("/run/netns/" + network, os.O_RDONLY), 0):
    raise OSError("the network " + network + " cannot be entered")
warnings.simplefilter("ignore")
if isinstance(config, Prepare):
    from nbs_lib.prepare import prepare as stage
else:
    from nbs_lib.train import train as stage
stage(config)
"""
    FRESH = multiprocessing.get_context("forkserver")
    FRESH.set_forkserver_preload(
        [
            "nbs_lib.train.loop",
            "nbs_lib.train.memory.dry_run",
            "deepspeed",
            "deepspeed.module_inject.auto_ep_config",
            "deepspeed.module_inject.auto_ep_layer",
            "diffusers.pipelines.stable_diffusion",
            "diffusers.loaders.lora_pipeline",
            "IPython",
            "torch._subclasses.fake_tensor",
            "torch.utils.cpp_extension",  # it asks for GPUs; the fork server sees none
        ]
    )

    def __init__(self, config: Train | Prepare, network: str = "", gpus: bool = False):
        self._file = tempfile.NamedTemporaryFile(prefix="output-")
        variables = {
            "config": config,
            "output": self._file.name,
            # the fork server's own are those of the moment when it was started
            "environment": dict(os.environ),
            "network": network,
            "gpus": gpus,
            "__name__": "kernel",
        }
        # in the fork server, DeepSpeed has chosen the CPU, and cannot change it
        context = multiprocessing.get_context("spawn") if gpus else self.FRESH
        self._process = context.Process(target=exec, args=(self.SOURCE, variables))
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, or None while the process works; -N: ended by signal N."""
        return self._process.exitcode

    def wait(self, seconds: float = 240) -> int:
        """Wait, and return the exit code. Errors: AssertionError with the output, on a timeout."""
        self._process.join(seconds)
        assert self.poll() is not None, f"no end after {seconds} s: {self.output}"
        return self.poll()

    @property
    def output(self) -> str:
        return Path(self._file.name).read_text(errors="replace")


@pytest.fixture(scope="session")
def start_training() -> Iterator[Callable[..., Kernel]]:
    """Yield `start_training(config)`, which starts the stage in a kernel with a process group."""
    kernels = []

    def call(config: Train | Prepare, **options: Any) -> Kernel:
        kernels.append(Kernel(config, **options))
        return kernels[-1]

    yield call
    for kernel in kernels:
        with suppress(ProcessLookupError):
            os.killpg(kernel.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def train(start_training) -> Callable[[Train], None]:
    """Return `train(config)`, which runs the stage to its end, and checks that it succeeds."""

    def call(config: Train):
        kernel = start_training(config)
        assert kernel.wait() == 0, kernel.output

    return call


def prepare_examples(folder: Path, **changed: Any) -> Run:
    """Prepare sixteen examples, eight of a prior, and two teacher's answers for each."""
    from nbs_lib.prepare import prepare

    parameters = {
        "max_examples": 16,
        "prior_preservation_source": "picturebook",
        "prior_preservation_max_examples": 8,
        "teacher_cache": "data",
        "teacher_samples": 2,
        "num_processes": 2,
    }
    with threads(1):
        return prepare(Prepare(str(folder), **parameters | changed)).run


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Run:
    """Return a run with some prepared examples; for reading only."""
    return prepare_examples(tmp_path_factory.mktemp("my rüns") / "prepared")


@pytest.fixture(scope="session")
def prepared_tiny(tmp_path_factory, tiny_base) -> Run:
    """Return a prepared run on a base whose steps take half as long; for reading only.

    It serves trainings that test processes.
    """
    place = tmp_path_factory.mktemp("my rüns")
    return prepare_examples(
        place / "prepared", base=str(tiny_base("sd1", place / "tiny")), resolution=32
    )


@pytest.fixture(scope="session")
def new_run(tmp_path_factory, prepared) -> Callable[..., Run]:
    """Return `new_run(of)`, which makes an empty run on the examples that the run `of` prepared.

    Its path has a space.
    """

    def call(of: Run = prepared, folder: Path | None = None) -> Run:
        run = Run(folder or tmp_path_factory.mktemp("my rüns") / "run")
        run.folder.mkdir(parents=True)
        run.cache.symlink_to(of.cache.resolve())
        run.update(stages={"prepare": of.stage_record("prepare")})
        return run

    return call


@pytest.fixture(scope="session")
def interrupted() -> Callable[[Run], Run]:
    """Return `interrupted(run)`, which copies a trained run beside it as an interrupted one.

    The copy ends after the last checkpoint but one; the last one is that of the last step.
    """

    def call(run: Run) -> Run:
        other = Run(run.folder.with_name(f"{run.name} interrupted"))
        shutil.copytree(run.folder, other.folder, symlinks=True)
        *_, last = sorted(other.checkpoints.iterdir())
        for folder in (other.adapter, other.model, last):
            shutil.rmtree(folder, ignore_errors=True)
        other.update_stage("train", status="interrupted")
        return other

    return call


@pytest.fixture(scope="session")
def skip_or_fail() -> Callable[[str], None]:
    """Return `skip_or_fail(why)`, which ends a test because this machine lacks something.

    The test is skipped, except in CI: nothing may be lacking there, so the test fails.
    """
    return pytest.fail if os.environ.get("CI") else pytest.skip


def ip(*arguments: str):
    process = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if process.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {process.stderr.strip()}")


@dataclass
class Network:
    """Two hosts as two network namespaces, joined by a cable that can be cut."""

    names: tuple[str, str]
    addresses: tuple[str, str] = ("10.77.0.1", "10.77.0.2")

    def connect(self):
        cable = "type veth peer name onepass0 netns".split()
        for name in self.names:
            ip("netns", "add", name)
        ip("link", "add", "onepass0", "netns", self.names[0], *cable, self.names[1])
        for name, address in zip(self.names, self.addresses, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "onepass0")
            for link in ("lo", "onepass0"):
                ip("-n", name, "link", "set", link, "up")

    def place(self, host: int) -> dict[str, Any]:
        """Return the parameters of a stage that say where it is executed."""
        address = {"master_addr": self.addresses[0], "master_port": 29511}
        return {"num_nodes": 2, "node_rank": host} | address

    def cut(self, host: int):
        """Cut the cable at a host, without a goodbye: packets are lost from here on."""
        ip("-n", self.names[host], "link", "set", "onepass0", "down")


@pytest.fixture
def network(skip_or_fail) -> Iterator[Network]:
    """Yield a network of two hosts."""
    # two suites on one machine have hosts of their own
    network = Network((f"onepass-a-{os.getpid()}", f"onepass-b-{os.getpid()}"))
    try:
        network.connect()
        yield network
    except OSError as failure:
        skip_or_fail(f"no network of two hosts can be made here: {failure}")
    finally:
        for name in network.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.fixture
def mount(skip_or_fail) -> Iterator[Callable[[Path, str], Path]]:
    """Yield `mount(folder, options)`, which makes a folder with its own file system in memory."""
    mounted = []

    def call(folder: Path, options: str) -> Path:
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            skip_or_fail(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield call
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_disk(mount, tmp_path) -> Path:
    """Return the folder of a file system of 24 MiB."""
    return mount(tmp_path / "small disk", "size=24m")


@pytest.fixture(scope="session")
def base():
    from nbs_lib.models import find_base

    return find_base("embedded")


@pytest.fixture(scope="session")
def tiny_base() -> Callable[[str, Path], Path]:
    """Return `tiny_base(kind, folder)`, which writes a base of 32 pixels with random weights.

    The stock pipeline of its family writes it. The bases differ as the real ones do.
    kind: sd1, sd2-v (v-prediction, a wider text encoder), sdxl, sd3 or sd3-t5.
    """
    return write_tiny_base


def write_tiny_base(kind: str, folder: Path) -> Path:
    if kind.startswith("sd3"):
        return write_tiny_sd3(kind, folder)
    import torch
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    from nbs_lib.models import EMBEDDED

    tokenizer = CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = {
            "unet": tiny_unet(kind),
            "vae": tiny_vae(kind),
            "scheduler": tiny_scheduler(kind),
            "tokenizer": tokenizer,
        }
        if kind == "sdxl":
            parts["text_encoder"] = tiny_text_encoder(CLIPTextModel, 32, "quick_gelu")
            parts["text_encoder_2"] = tiny_text_encoder(CLIPTextModelWithProjection, 48, "gelu")
            parts["tokenizer_2"] = CLIPTokenizer.from_pretrained(
                EMBEDDED / "tokenizer", pad_token="!"
            )
            pipe = StableDiffusionXLPipeline(**parts)
        else:
            parts["text_encoder"] = tiny_text_encoder(
                CLIPTextModel, *{"sd1": (32, "quick_gelu"), "sd2-v": (48, "gelu")}[kind]
            )
            pipe = StableDiffusionPipeline(
                **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
            )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def write_tiny_sd3(kind: str, folder: Path) -> Path:
    """Write a tiny base of SD 3.5's shape: with norms of queries, and two attentions in a block."""
    import torch
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    from nbs_lib.models import EMBEDDED

    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=96,
            caption_projection_dim=32,
            pooled_projection_dim=2 * 24,
            pos_embed_max_size=12,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        )
        t5, t5_tokenizer = tiny_t5() if kind == "sd3-t5" else (None, None)
        pipe = StableDiffusion3Pipeline(
            transformer=transformer,
            vae=tiny_vae(kind),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            text_encoder=tiny_text_encoder(CLIPTextModelWithProjection, 32, "quick_gelu"),
            text_encoder_2=tiny_text_encoder(CLIPTextModelWithProjection, 48, "gelu"),
            text_encoder_3=t5,
            tokenizer=CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer"),
            tokenizer_2=CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer", pad_token="!"),
            tokenizer_3=t5_tokenizer,
        )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def tiny_t5():
    """Return a T5 of a few weights, and a tokenizer whose pieces are letters."""
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz!,."]
    tokenizer = T5TokenizerFast(
        vocab=[(piece, -float(i)) for i, piece in enumerate(pieces)],
        extra_ids=0,
        model_max_length=512,
    )
    config = T5Config(
        vocab_size=48,
        d_model=96,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config), tokenizer


def tiny_unet(kind: str):
    from diffusers import UNet2DConditionModel

    attend, plain = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")
    outer, inner = (plain, attend) if kind == "sdxl" else (attend, plain)
    family_settings = {
        "sd1": {"cross_attention_dim": 32, "attention_head_dim": 4},
        "sd2-v": {
            "cross_attention_dim": 48,
            "attention_head_dim": (2, 4),
            "use_linear_projection": True,
        },
        "sdxl": {
            "cross_attention_dim": 32 + 48,
            "attention_head_dim": (2, 4),
            "use_linear_projection": True,
            "transformer_layers_per_block": (1, 2),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 24 + 6 * 8,
        },
    }
    return UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(32, 64),
        norm_num_groups=8,
        down_block_types=(outer[0], inner[0]),
        up_block_types=(inner[1], outer[1]),
        **family_settings[kind],
    )


VAE_SCALES = {"sdxl": 0.13025, "sd3": 1.5305, "sd3-": 1.5305}


def tiny_vae(kind: str):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        norm_num_groups=4,
        latent_channels=4,
        sample_size=32,
        scaling_factor=VAE_SCALES.get(kind[:4], 0.18215),
        shift_factor=0.0609 if kind.startswith("sd3") else None,
    )


def tiny_scheduler(kind: str):
    """Return the family's own scheduler, with the foreign settings that the real files carry."""
    from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler

    schedule = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "timestep_spacing": "leading",
    }
    settings = schedule | {
        "clip_sample": False,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
    }
    settings["prediction_type"] = "v_prediction" if kind == "sd2-v" else "epsilon"
    return {"sd1": PNDMScheduler, "sd2-v": DDIMScheduler, "sdxl": EulerDiscreteScheduler}[
        kind
    ].from_config(settings)


def vocabulary() -> dict[str, int]:
    """Return the settings of a text model that reads the embedded base's tokens."""
    from nbs_lib.models import EMBEDDED

    config = json.loads((EMBEDDED / "text_encoder" / "config.json").read_text())
    ids = [f"{name}_token_id" for name in ("bos", "eos", "pad")]
    return {name: config[name] for name in ("vocab_size", *ids)}


def tiny_text_encoder(cls: type, width: int, activation: str):
    from transformers import CLIPTextConfig

    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=40,
        hidden_act=activation,
        projection_dim=24,
        **vocabulary(),
    )
    return cls(config)


@pytest.fixture(scope="session")
def adapter(base, tmp_path_factory) -> Path:
    """Return an untrained adapter that changes pictures well beyond rounding."""
    import torch

    from nbs_lib.models.lora.layers import add_lora
    from nbs_lib.models.lora.saving import save_adapter

    folder, generator = tmp_path_factory.mktemp("run") / "adapter", torch.Generator().manual_seed(1)
    with threads(1):
        unet = base.denoiser()
        add_lora(unet, rank=4, alpha=4.0, seed=0)
        for name, parameter in unet.named_parameters():
            if "lora_B" in name:
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        save_adapter(folder, unet, {"base": "embedded", "base_hash": base.hash, "w_train": W})
    return folder


@pytest.fixture(scope="session")
def add_run_on_another_base(base) -> Callable[[Path], None]:
    """Return `add_run_on_another_base(outputs)`, which adds a run that cannot be sampled here."""
    from nbs_lib.models.lora.layers import add_lora
    from nbs_lib.models.lora.saving import save_adapter

    def call(outputs: Path):
        run = Run(outputs / "elsewhere")
        run.update(stages={"train": {"status": "done"}})
        unet = base.denoiser()
        add_lora(unet, rank=2, alpha=2.0, seed=0)
        metadata = {"base": "another-base", "base_hash": "0123456789abcdef" * 4, "w_train": W}
        save_adapter(run.adapter, unet, metadata)

    return call


@pytest.fixture(scope="session")
def compared(base, adapter, tmp_path_factory) -> Run:
    """Return a run with a whole comparison of two prompts, one hostile; for reading only."""
    from nbs_lib.compare import compare

    run = Run(tmp_path_factory.mktemp("my rüns") / "outputs" / "tiny")
    run.cache.mkdir(parents=True)
    (run.cache / "cache.json").write_text(
        json.dumps({"base": "embedded", "base_hash": base.hash, "resolution": 128})
    )
    shutil.copytree(adapter, run.adapter)
    run.update(
        stages={
            "train": {
                "status": "done",
                "outputs": {},
                "parameters": {"note": HOSTILE},
                "seconds": 1.0,
            }
        }
    )
    run.metrics.write_text(
        '{"step": 1, "loss": 0.25}\n{"step": 6, "loss": 0.125}\n{"step": 7, "lo'
    )  # killed while writing
    with threads(1):
        compare(
            Compare(
                str(run.folder),
                prompts=[HOSTILE, "A boy is watching TV"],
                seeds=[3],
                steps=2,
                captions=10,
            )
        )
    return run
