"""README.md and the pages of docs/: commands run, links resolve, errors occur, names exist."""

import ast
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typer
from PIL import Image

from nbs_lib.cli.app import app
from nbs_lib.config import STAGES, Prepare, Train
from nbs_lib.config.stage import defaults
from nbs_lib.config.validation import COMMAND, ParameterError
from nbs_lib.files import ROOT
from nbs_lib.pipeline.cluster import PORT
from nbs_lib.pipeline.recipes import configs, recipe_names
from nbs_lib.run.run import RECIPE_LOCK, Run

pytestmark = pytest.mark.slow

DOCS = ROOT / "docs"
PROJECT = "../README"
PAGES = [
    "README",
    "tutorial",
    "using-the-adapter",
    PROJECT,
    "your-own-20-pictures",
    "real-stable-diffusion",
    "four-gpus-two-machines",
    "running",
    "comparing",
    "choosing",
    "without-a-checkout",
]
"""In the order in which their commands are executed: the second and third use the first's run."""
PAGES += ["concepts", "data", "how-it-works", "reference-arguments", "what-is-trusted"]
PAGES += ["making-the-base", "troubleshooting"]
GENERATED = [f"reference/{path.stem}" for path in sorted((DOCS / "reference").glob("*.md"))]
WORDS = 1000
"""The most that README.md has."""
COMMANDS, NEEDS = ("", "sh", "bash", "console", "python"), re.compile(r"<!-- needs: (.+) -->")
QUICK = (
    "prepare.max_examples=32 prepare.prior_preservation_max_examples=8 prepare.num_processes=1 "
    "train.steps=2 train.batch_size=2 train.num_processes=1 "
    "train.deepspeed=false train.validation_steps=0 "
    "compare.steps=2 compare.captions=0 compare.clip=none"
).split()
QUICK += ["compare.prompts=[A person holding a cat]"]
"""Parameters that are added to every run of a page."""
REAL = {
    ("tutorial", "onepass run demo"): STAGES,
    ("tutorial", "onepass run frontier --name demo"): ["prepare", "train"],
    ("your-own-20-pictures", ""): ["prepare"],
}
"""By page and command, or page alone, the stages whose real notebooks are run; others do little."""
# what pages call besides onepass
PROGRAMS = "make source sbatch kubectl hf pip python3 cd npm papermill".split()
WRONG = ("doctor",)
"""Commands that may end with 1: this machine lacks something."""


@dataclass(frozen=True)
class Block:
    """A fenced block.

    kind: the word after the fence.
    needs: the text of the `needs` comment before it.
    section: the heading above it.
    """

    kind: str
    needs: str
    text: str
    section: str

    def commands(self) -> list[str]:
        """Its lines, those that end in a backslash joined to the next."""
        return [
            line.strip() for line in self.text.replace("\\\n", " ").splitlines() if line.strip()
        ]


def blocks(page: str) -> list[Block]:
    found, inside, before, section = [], None, "", ""
    for line in (DOCS / f"{page}.md").read_text().splitlines():
        if inside is not None:
            if line.strip() == "```":
                found.append(Block(*inside[:2], "\n".join(inside[2]), section))
                inside = None
            else:
                inside[2].append(line)
        elif line.startswith("```"):
            needs = NEEDS.fullmatch(before)
            inside = (line[3:].strip(), needs[1] if needs else "", [])
        else:
            section = line.lstrip("# ") if line.startswith("#") else section
        before = line
    assert inside is None, f"{page}: a block does not end"
    return found


def every_command(pages: list[str] = PAGES) -> Iterator[tuple[str, Block, str]]:
    for page in pages:
        for block in blocks(page):
            if block.kind in COMMANDS and block.kind != "python":
                yield from ((page, block, line) for line in block.commands())


def test_every_page_is_tested_and_indexed():
    pages = set(PAGES) - {PROJECT}
    assert {path.stem for path in DOCS.glob("*.md")} == pages
    index = (DOCS / "README.md").read_text()
    assert all(f"({page}.md)" in index for page in [*pages - {"README"}, *GENERATED])


def test_the_readme_is_read_in_a_few_minutes():
    text = re.sub(r"<!--.*?-->", "", (DOCS / f"{PROJECT}.md").read_text())
    assert len(re.findall(r"\S*\w\S*", text)) <= WORDS


def test_every_block_is_of_a_known_kind():
    assert {block.kind for page in PAGES for block in blocks(page)} <= {
        "sh",
        "python",
        "text",
        "math",
    }


# 1  commands


@pytest.fixture(scope="module")
def checkout(project, tmp_path_factory):
    """Return a project with stand-in notebooks, the embedded base and twenty pictures.

    A test may put the real notebooks back.
    """
    own = type(project)(tmp_path_factory.mktemp("docs") / "onepass")
    base = Path("nbs_lib") / "picturebook" / "base"
    shutil.copytree(ROOT / base, own.folder / base)
    shutil.copytree(
        own.folder / "notebooks", own.folder / "stand-ins", ignore=shutil.ignore_patterns("recipes")
    )
    pictures = own.folder / "data" / "my-pictures"
    pictures.mkdir(parents=True)
    for i in range(20):
        Image.new("RGB", (80, 64), (12 * i, 200 - 9 * i, 90)).save(pictures / f"{i:02}.jpg")
        (pictures / f"{i:02}.txt").write_text(f"a blue teapot, number {i}\n")
    return own


def use_notebooks(own, real: list[str]):
    for number, stage in enumerate(STAGES, 1):
        name = f"{number}_{stage}.ipynb"
        shutil.copy(
            ROOT / "notebooks" / name if stage in real else own.folder / "stand-ins" / name,
            own.folder / "notebooks",
        )


def quick(arguments: list[str]) -> list[str]:
    """Return the arguments of `onepass`, with the quick parameters if it would run something."""
    if arguments[0] in ("run", "sweep") and not {"--dry-run", "--on"} & set(arguments):
        return [*arguments, *(part for each in QUICK for part in ("-p", each))]
    return arguments


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_do_what_it_says(page, checkout):
    kept = {}
    for block in blocks(page):
        if block.needs or block.kind not in COMMANDS:
            continue
        if block.kind == "python":
            source = re.sub(r"num_inference_steps=\d+", "num_inference_steps=2", block.text)
            environment = os.environ | {"PYTHONPATH": str(checkout.folder)}
            subprocess.run(
                [sys.executable, "-c", source],
                cwd=checkout.folder,
                env=environment,
                check=True,
                capture_output=True,
            )
            continue
        for line in block.commands():
            program, *arguments = shlex.split(line, comments=True)
            assert program == "onepass", f"{page}: {line!r} is not executed here; say what it needs"
            use_notebooks(checkout, REAL.get((page, line), REAL.get((page, ""), [])))
            process = checkout.start(*quick(arguments))
            out, err = process.communicate(timeout=300)
            assert process.returncode in ((0, 1) if arguments[0] in WRONG else (0,)), (
                f"{page}: {line}: {out}{err}"
            )
            kept[line] = out.count("unchanged, kept")
    if page == "tutorial":
        assert kept["onepass run demo"] == 3, "the second time, nothing is done"
        assert kept["onepass run frontier --name demo"] == 2
        assert (checkout.outputs / "cat.png").is_file() and not (
            checkout.outputs / "quick"
        ).exists()
    if page == "your-own-20-pictures":
        assert checkout.record("teapot")["stages"]["prepare"]["examples"] == 20 + 8


@pytest.mark.parametrize(
    ("page", "line"), sorted({(page, line) for page, _, line in every_command()})
)
def test_every_command_is_one_with_parameters_that_are_allowed(page, line, tmp_path):
    """Commands that need a GPU or a cluster are parsed as well."""
    program, *arguments = shlex.split(line, comments=True)
    if program != "onepass":
        assert program in PROGRAMS
        return
    if "--help" in arguments:
        return
    name, *rest = arguments
    command = typer.main.get_command(app).commands[name]
    given = command.make_context(name, rest).params
    if name == "run":
        met = [f"train.master_port={PORT}"] if given["on"] else []  # as the command does
        configs(given["recipe"], tmp_path, [*met, *(given["p"] or [])])
    if name == "sweep":
        assert given["recipe"] in recipe_names() and given["p"]


# 2  links


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as code hosts make them."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES + GENERATED)
def test_links_and_pictures_lead_somewhere(page):
    own = DOCS / f"{page}.md"
    text = own.read_text()
    for mark, words, target in re.findall(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (own.parent / name).resolve() if name else own
        assert path.is_file() and path.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(path.read_text()), target
        assert words.strip() and (not mark or len(words) > 20), (
            f"{target}: no words for those who do not see it"
        )


LARGEST = {".png": 250_000, ".webp": 2_000_000}
"""Bytes of a picture in docs/pictures, by its kind: a .webp is an animation."""


def test_pictures_are_small_and_used():
    used = "".join((DOCS / f"{page}.md").read_text() for page in PAGES)
    for path in (DOCS / "pictures").iterdir():
        assert (
            path.suffix in LARGEST
            and path.stat().st_size < LARGEST[path.suffix]
            and f"pictures/{path.name}" in used
        )
        Image.open(path).verify()


def test_lines_are_of_a_length_that_is_read():
    for page in PAGES + GENERATED:
        outside = re.sub(
            r"^```(text|python).*?^```", "", (DOCS / f"{page}.md").read_text(), flags=re.M | re.S
        )
        long = [
            line
            for line in outside.splitlines()
            if len(line) > 128 and not line.startswith(("|", "!["))
        ]
        assert not long, (page, long)


# 3  errors


def as_printed(failure: Exception, before: str = "") -> str:
    return f"{before}{type(failure).__name__}: {failure}"


def raised(call: Callable, *arguments, before: str = "", **more) -> str:
    with pytest.raises(Exception) as failure:  # noqa: B017  what it says is compared
        call(*arguments, **more)
    return as_printed(failure.value, before)


@dataclass(frozen=True)
class World:
    """The fixtures that provoke an error."""

    own: object
    folder: Path
    patch: pytest.MonkeyPatch


def typed(*arguments: str) -> Callable[[World], str]:
    return lambda world: world.own.onepass(*arguments, status=2).stderr


def at_work(world: World) -> str:
    run = Run(world.own.outputs / "held")
    with run.exclusive(RECIPE_LOCK):
        return world.own.onepass("run", "demo", "--name", "held", status=1).stderr


def damaged(world: World) -> str:
    folder = world.own.outputs / "torn"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{")
    return world.own.onepass("show", "torn", status=1).stderr


def interrupted(world: World) -> str:
    process, end = (
        world.own.start("run", "demo", "--name", "stopped", DOES_train="time.sleep(100)"),
        time.monotonic() + 120,
    )
    run = Run(world.own.outputs / "stopped")
    while run.stage_record("train").get("status") != "running":
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=60)[1].splitlines()[0]


def died(world: World) -> str:
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    return world.own.onepass(
        "run", "demo", "--name", "dead", status=1, DOES_train=kill
    ).stderr.splitlines()[0]


def other_checkpoints(world: World) -> str:
    from nbs_lib.train.checkpoint.checkpoint import save_checkpoint
    from nbs_lib.train.checkpoint.resume import refuse_others

    process = SimpleNamespace(is_main_process=True, process_index=0, wait_for_everyone=lambda: None)
    links = lambda folder, step: {}  # noqa: E731
    state = SimpleNamespace(shared_state=dict, process_state=dict, link_files=links)
    save_checkpoint(process, state, world.folder, 1, {"parameters": "a"}, Train(steps=300))
    return raised(
        refuse_others,
        world.folder,
        {"parameters": "b"},
        Train(steps=400),
        before="onepass: train failed: ",
    )


def no_source(world: World) -> str:
    from nbs_lib.prepare.sources import open_source, source_options

    source = str(world.folder / "nowhere")
    return raised(
        open_source,
        source,
        source_options(Prepare(source=source), 0),
        before="onepass: prepare failed: ",
    )


def no_captions(world: World) -> str:
    from nbs_lib.prepare.encode.ingest import nothing_kept

    world.patch.setenv(COMMAND, "1")
    return as_printed(
        nothing_kept("data/images", Counter({"image without caption": 3})),
        "onepass: prepare failed: ",
    )


def no_image(world: World) -> str:
    from io import BytesIO

    from nbs_lib.prepare.images import decode

    whole = BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(whole, "PNG")
    return raised(decode, whole.getvalue()[:-3000]).partition(": ")[2]


def full(world: World) -> str:
    from nbs_lib.prepare.build import explain_full_disk

    return explain_full_disk(world.folder, world.folder, 3, 20)


def base(name: str | None) -> Callable[[World], str]:
    def call(world: World) -> str:
        from nbs_lib.models import find_base

        world.patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        return raised(find_base, name or str(world.folder))

    return call


def other_base(world: World) -> str:
    from nbs_lib.compare.sampling.adapters import check_same_base

    return raised(
        check_same_base,
        SimpleNamespace(name="embedded", hash="1" * 64),
        {"base_hash": "2" * 64},
        world.folder,
    )


def file(name: str) -> Callable[[World], str]:
    """Return a function that gives the error of a base in an empty file of this name."""

    def call(world: World) -> str:
        from safetensors.torch import save_file

        from nbs_lib.models import find_base

        path = world.folder / name
        save_file({"model.diffusion_model.x": torch.zeros(1)}, path)
        return raised(find_base, str(path))

    return call


def link_out(world: World) -> str:
    from nbs_lib.models import EMBEDDED, find_base

    folder = shutil.copytree(EMBEDDED, world.folder / "base")
    (folder / "vae" / "notes.txt").symlink_to(world.folder)
    return raised(find_base, str(folder))


def too_large_to_prepare(world: World) -> str:
    from nbs_lib.config import Prepare
    from nbs_lib.prepare.encode import memory
    from nbs_lib.run.memory import MemoryPlan

    world.patch.setattr(memory, "_suggestion", lambda *_: "give batch_size = 1")
    plan = MemoryPlan({"VAE": 2**30}, {"encoding": 2**30}, 2, 2**30, 0)
    return raised(memory.check_fits, plan, Prepare(str(world.folder)), None)


def too_large(world: World) -> str:
    from nbs_lib.train.memory import estimate as memory

    world.patch.setattr(
        memory, "_suggestion", lambda *_: "give batch_size = 1, which needs 900 MiB"
    )
    plan = memory.MemoryPlan({"base": 2**30}, {"activations": 2**30}, 2, 2**30, 0)
    return raised(memory.check_fits, plan, Train(), world.folder)


def ended(world: World) -> str:
    from nbs_lib.launch.errors import LaunchError, first_failure

    (world.folder / "run.json").write_text("{}")
    return as_printed(LaunchError(first_failure(world.folder, {1: -signal.SIGKILL})))


def machine(patches: dict[str, object], **parameters) -> Callable[[World], str]:
    """Return a function that gives the error of `check_machine` on a patched machine."""

    def call(world: World) -> str:
        from nbs_lib.launch.preflight import check_machine

        for name, value in patches.items():
            world.patch.setattr(name, value)
        return raised(check_machine, Train(**parameters))

    return call


def too_many(world: World) -> str:
    from nbs_lib.launch.preflight import process_count

    world.patch.setattr(torch.cuda, "device_count", lambda: 4)
    return raised(process_count, Train(num_processes=8))


def taken(world: World) -> str:
    from nbs_lib.launch.preflight import port_of

    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        return raised(port_of, Train(num_nodes=2, master_port=port)).replace(str(port), "29500")


EMPTY_CACHE = {
    "key": "",
    "base": "",
    "base_hash": "",
    "resolution": 0,
    "examples": 0,
    "captions": 0,
    "captions_cut": 0,
    "text_shape": [],
    "shapes": {},
    "shards": [],
    "texts": [],
    "answers": None,
    "images": True,
    "spaces": {},
    "files": {},
}
"""cache.json of a cache without files."""


def cache_of(meta: dict | None, **parameters) -> Callable[[World], str]:
    def call(world: World) -> str:
        from nbs_lib.train.data.cache_reader import check_cache

        if meta is not None:
            (world.folder / "cache.json").write_text(json.dumps(meta))
        return raised(check_cache, world.folder, Train(**parameters))

    return call


PROVOKED: dict[str, Callable[[World], str]] = {
    "A recipe that is not there": typed("run", "demmo"),
    "A parameter that is not there": typed("run", "demo", "-p", "train.stepz=5"),
    "A value that does not fit": typed("run", "demo", "-p", "train.steps=many"),
    "A stage was left out": typed("run", "demo", "-p", "steps=5"),
    "Values that do not go together": typed(
        "run", "demo", "-p", "train.optimizer=prodigy", "-p", "train.zero_stage=2"
    ),
    "A sweep of one value": typed("sweep", "demo", "-p", "train.rank=4"),
    "A run that is not there": typed("show", "demmo"),
    "A contender that is none": typed(
        "run", "demo", "-p", "compare.contenders=[unguided, guided, tuned, tunned]"
    ),
    "Somebody is at work on it": at_work,
    "Its record is damaged": damaged,
    "It was interrupted": interrupted,
    "The kernel died": died,
    "The checkpoints are of other parameters": other_checkpoints,
    "A stage before it is missing": lambda world: raised(Run(world.folder).require, "train"),
    "The folder is not found": no_source,
    "No captions": no_captions,
    "A picture is not used": no_image,
    "The disk is full": full,
    "No such folder": base("/models/sd15"),
    "The hub cannot be reached": base("nobody/nothing"),
    "A part is missing": base(None),
    "A checkpoint is a pickle": file("sd.ckpt"),
    "A file is no whole model": file("sd.safetensors"),
    "A link leads out of the base": link_out,
    "The adapter belongs to another base": other_base,
    "It would not fit": too_large,
    "A preparation would not fit": too_large_to_prepare,
    "A process was ended": ended,
    "fp16 without a GPU": machine({}, mixed_precision="fp16"),
    "A package is missing": machine(
        {
            "nbs_lib.launch.preflight.importlib": SimpleNamespace(
                util=SimpleNamespace(find_spec=lambda name: None)
            )
        },
        optimizer="prodigy",
    ),
    "CUDA was used before": machine({"torch.cuda.is_initialized": lambda: True}, deepspeed=False),
    "The cache is damaged": cache_of(None),
    "No kept answers": cache_of(EMPTY_CACHE, teacher="cached"),
    "More processes than GPUs": too_many,
    "The port is taken": taken,
}  # fmt: skip
"""The cause of each error, by the heading of its entry.

The text of any other entry is compared with the library's sources.
"""
QUOTED = {block.section: block.text for block in blocks("troubleshooting") if block.kind == "text"}


def test_every_provoked_error_is_one_of_the_page():
    assert set(PROVOKED) <= set(QUOTED)


@pytest.mark.parametrize("entry", QUOTED)
def test_the_error_is_said_as_it_is_quoted(entry, project, tmp_path, monkeypatch):
    if entry in PROVOKED:
        said = PROVOKED[entry](World(project, tmp_path, monkeypatch)).strip()
        pattern = "(.+?)".join(map(re.escape, QUOTED[entry].split("…")))
        assert re.fullmatch(pattern, said, re.S), said
    else:
        message = re.sub(r"^\w+Error: ", "", QUOTED[entry])
        assert any(template.fullmatch(message) for template in sentences()), message


@cache
def sentences() -> list[re.Pattern]:
    """Return patterns of the library's texts with values; any text matches in place of a value."""
    found = []
    for path in (ROOT / "nbs_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    re.escape(part.value) if isinstance(part, ast.Constant) else ".+?"
                    for part in node.values
                ]
                if sum(len(part) for part in parts if part != ".+?") > 30:
                    found.append(re.compile("".join(parts), re.S))
    return found


# 4  names


@pytest.mark.parametrize("page", PAGES)
def test_parameters_and_recipes_that_are_named_exist(page):
    text = re.sub(r"^```text.*?^```", "", (DOCS / f"{page}.md").read_text(), flags=re.M | re.S)
    known = {stage: defaults(cls) for stage, cls in STAGES.items()}
    for stage, name in re.findall(r"\b(prepare|train|compare)\.([a-z]\w*)", text):
        assert name in known[stage], f"{stage}.{name}"
    for assignment in re.findall(r"`((?:prepare|train|compare)\.\w+=[^`]+)`", text):
        configs("demo", ROOT / "outputs" / "never", [assignment])
    named = re.findall(r"\brecipes? `([^`]+)`", text) + re.findall(
        r"`onepass (?:run|sweep) ([a-z][\w-]*)", text
    )
    assert set(named) <= set(recipe_names())


def test_a_parameter_that_is_none_would_be_seen():
    with pytest.raises(ParameterError):
        configs("demo", ROOT / "outputs" / "never", ["train.stepz=1"])
