"""A run on the hub: card, guiders, pictures and upload, against a local server of the hub's API."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import yaml
from diffusers import ClassifierFreeGuidance
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from nbs_lib.cli.app import app
from nbs_lib.config.validation import ParameterError
from nbs_lib.export import ExportError
from nbs_lib.export.guiders import guided_share, write_guiders
from nbs_lib.export.hub import HubError, push, upload
from nbs_lib.export.hub_card import card_pictures
from nbs_lib.files import ROOT
from nbs_lib.run.run import Run

pytestmark = pytest.mark.slow

REPOSITORY = "some-one/my-adapter"
TOKENS = {"hf_writer": 200, "hf_reader": 403}
"""What each token may do; any other is refused with 401."""
LICENSES = ("mit", "openrail++", "apache-2.0", "other", "unknown")
"""Some of the hub's identifiers."""


def card_errors(card: str) -> list[str]:
    """Return what the hub finds wrong in the metadata of a card, by its documented rules."""
    front = re.match(r"---\n(.*?)\n---\n", card, re.S)
    values = yaml.safe_load(front[1]) if front else {}
    wrong = []
    if values.get("license") not in LICENSES:
        wrong.append('"license" must be one of its identifiers')
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", values.get("base_model", "a/b")):
        wrong.append('"base_model" with value is not valid. Use a model id from hf.co/models')
    for name, cls in (("tags", str), ("widget", dict)):
        if not all(isinstance(value, cls) for value in values.get(name, [])):
            wrong.append(f'"{name}" must be a list')
    for picture in values.get("widget", []):
        if not (picture.get("text") and picture["output"]["url"].endswith(".png")):
            wrong.append('"widget" must have a text and an output')
    return wrong


@dataclass
class Hub:
    """The state of the stand-in: its repositories' files, large objects, and requests."""

    address: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict | list]:
        """Return status and JSON of a request, as huggingface_hub 2.4 sends it."""
        if method == "PUT":
            oid = path.rpartition("/")[2]
            assert hashlib.sha256(body).hexdigest() == oid
            self.objects[oid] = body
            return 200, {}
        if path == "/api/repos/create":
            request = json.loads(body)
            name = f"{request['organization']}/{request['name']}"
            status = 409 if name in self.files else 200
            self.files.setdefault(name, {})
            return status, {"url": f"{self.address}/{name}"}
        if path == "/api/validate-yaml":
            wrong = card_errors(json.loads(body)["content"])
            errors = [{"message": message} for message in wrong]
            return (400 if wrong else 200), {"errors": errors, "warnings": []}
        name = re.match(r"(?:/api/models)?/([\w-]+/[\w-]+)", path)[1]
        if name not in self.files:
            return 404, {"error": "Repository not found"}
        if path.endswith("/tree/main"):
            entries = [{"path": path, "size": len(data)} for path, data in self.files[name].items()]
            return 200, [{"type": "file", "oid": "0" * 40} | entry for entry in entries]
        if path.endswith("/preupload/main"):
            return 200, {"files": list(map(self.upload_mode, json.loads(body)["files"]))}
        if path.endswith(".git/info/lfs/objects/batch"):
            return 200, {"objects": list(map(self.upload_action, json.loads(body)["objects"]))}
        assert path == f"/api/models/{name}/commit/main", path
        return self.commit(name, map(json.loads, body.splitlines()))

    def upload_mode(self, file: dict) -> dict:
        mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}

    def upload_action(self, item: dict) -> dict:
        link = {"href": f"{self.address}/objects/{item['oid']}", "header": {}}
        return item | {"actions": {"upload": link}}

    def commit(self, name: str, lines: Iterator[dict]) -> tuple[int, dict]:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.commits.append(value["summary"])
            elif line["key"] == "deletedFile":
                del self.files[name][value["path"]]
            elif line["key"] == "file":
                self.files[name][value["path"]] = base64.b64decode(value["content"])
            else:
                self.files[name][value["path"]] = self.objects[value["oid"]]
        oid = f"{len(self.commits):040}"
        url = f"{self.address}/{name}/commit/{oid}"
        return 200, {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    """Yield a hub on 127.0.0.1, which this process and its children upload to as `hf_writer`."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.partition("?")[0]
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status = 200 if self.command == "PUT" else TOKENS.get(token, 401)
            answer = {"error": "Invalid credentials in Authorization header"}
            if status == 200:
                status, answer = state.answer(self.command, path, body)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_PUT = do_GET = reply  # noqa: N815

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    state.address = f"http://127.0.0.1:{server.server_port}"
    use_hub(monkeypatch, state.address)
    yield state
    server.shutdown()
    server.server_close()


def use_hub(monkeypatch, address: str, token: str = "hf_writer"):
    # for children, which read them when they import it, and for this process, which has
    for name, value in (("ENDPOINT", address), ("HUB_DISABLE_XET", "1"), ("TOKEN", token)):
        monkeypatch.setenv(f"HF_{name}", value)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


@pytest.fixture(scope="module")
def run(compared, tmp_path_factory) -> Run:
    """Return a copy of a compared run, to write into."""
    folder = tmp_path_factory.mktemp("my rüns") / "outputs" / "an adapter"
    return Run(shutil.copytree(compared.folder, folder, symlinks=True))


@pytest.fixture(scope="module")
def dry(run):
    """Return what a dry run writes, without any hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.delenv("HF_TOKEN", raising=False)
        return push(run.folder, REPOSITORY, "openrail++", dry_run=True)


def test_a_dry_run_leaves_the_whole_repository_and_asks_no_hub(run, dry):
    assert dry.folder == run.folder / "export" / "hub" and not dry.url and not dry.remark
    on_disk = {
        path.relative_to(dry.folder).as_posix(): path.stat().st_size
        for path in dry.folder.rglob("*")
        if path.is_file()
    }
    assert dry.files == on_disk
    assert {
        "README.md",
        "pytorch_lora_weights.safetensors",
        "guider/guider_config.json",
        "images/00.png",
        "images/01.png",
        "comparison/grid.png",
        "comparison/results.json",
        "report.html",
    } <= set(on_disk)


def test_the_card_is_one_that_the_hub_accepts(run, dry):
    text = (dry.folder / "README.md").read_text()
    assert card_errors(text) == []
    values = ModelCard(text, ignore_metadata_errors=False).data.to_dict()
    assert values["license"] == "openrail++" and values["pipeline_tag"] == "text-to-image"
    assert "base_model" not in values, "no repository of the hub is the embedded base"
    results = json.loads((run.compare / "results.json").read_text())
    prompts = [picture["prompt"] for picture in results["pictures"]]
    assert [picture["text"] for picture in values["widget"]] == prompts
    for picture, compared in zip(values["widget"], results["pictures"], strict=True):
        shown = (dry.folder / picture["output"]["url"]).read_bytes()
        assert shown == (run.compare / compared["files"]["tuned"]).read_bytes()
    # how to sample, and the numbers
    assert f"pipe.load_lora_weights('{REPOSITORY}'" in text and "guidance_scale=1" in text
    assert "| license | openrail++ |" in text and "denoiser evaluations for one image" in text
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (dry.folder / link).is_file(), link


def test_the_adapter_s_guider_makes_one_pass(dry):
    guider = ClassifierFreeGuidance.from_pretrained(dry.folder, subfolder="guider")
    guider.set_state(step=0, num_inference_steps=25, timestep=0)
    assert guider.num_conditions == 1


def test_selective_guiders_guide_as_many_steps_as_the_sampler(tmp_path):
    for share in (0.8, 0.5, 0.13):
        for steps in (1, 3, 4, 25, 50, 999):
            stop = guided_share(share, steps)
            assert int(stop * steps) == int(share * steps + 0.5), (share, steps)
    compared = {"steps": 25, "nfe": {"guided": 50, "selective-50": 38, "selective-20 at 3": 45}}
    write_guiders(tmp_path, {"w_train": 4.0, "compared": compared})
    passes = {}
    for folder in tmp_path.iterdir():
        guider = ClassifierFreeGuidance.from_pretrained(folder)
        for step in range(25):
            guider.set_state(step=step, num_inference_steps=25, timestep=0)
            passes[folder.name] = passes.get(folder.name, 0) + guider.num_conditions
        assert guider.guidance_scale == {"guider": 1, "guider-selective-50": 4}.get(folder.name, 3)
    assert passes == {"guider": 25, "guider-selective-50": 38, "guider-selective-20": 45}


def test_a_push_is_one_commit_of_all_files(run, hub, tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "nbs_lib", "push", str(run.folder), "--json"]
    command += ["--to", REPOSITORY, "--license", "mit"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pushed = json.loads(done.stdout)
    assert pushed["url"] == f"{hub.address}/{REPOSITORY}"
    assert hub.commits == ["Upload an adapter by Onepass"]
    folder = run.folder / "export" / "hub"
    assert hub.files[REPOSITORY] == {name: (folder / name).read_bytes() for name in pushed["files"]}
    assert len(hub.objects) == 1, "the weights, as a large file"
    # again, into the repository that there is now: what an earlier push had more goes
    hub.files[REPOSITORY] |= {"images/99.png": b"a picture", "NOTES.md": b"of the owner"}
    upload(folder, REPOSITORY, run.name)
    assert len(hub.commits) == 2
    assert set(hub.files[REPOSITORY]) == {*pushed["files"], "NOTES.md"}


@pytest.mark.parametrize(
    ("token", "words"),
    [("hf_nobody", "(401): it does not accept the token"), ("hf_reader", "(403): the token may")],
)
def test_a_token_that_the_hub_refuses(dry, hub, monkeypatch, token, words):
    use_hub(monkeypatch, hub.address, token)
    with pytest.raises(HubError, match=re.escape(f"the hub refused {REPOSITORY} {words}")):
        upload(dry.folder, REPOSITORY, "run")
    assert not hub.files


def test_a_card_that_the_hub_refuses_uploads_nothing(dry, hub, tmp_path):
    folder = shutil.copytree(dry.folder, tmp_path / "hub")
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(re.sub("license: .*", "license: openrale", card))
    with pytest.raises(HubError, match='"license" must be one of its identifiers'):
        upload(folder, REPOSITORY, "run")
    assert hub.files == {REPOSITORY: {}}


def test_no_network_leaves_the_folder_and_says_so(dry, monkeypatch):
    use_hub(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(HubError, match="was not uploaded to http://127.0.0.1:9: .+ is whole"):
        upload(dry.folder, REPOSITORY, "run")
    assert (dry.folder / "README.md").is_file()


def test_wrong_input_is_refused_before_the_export(run, monkeypatch):
    monkeypatch.setattr("nbs_lib.export.hub.export", None)
    monkeypatch.setattr("nbs_lib.export.hub.get_token", lambda: None)
    for repository in ("my-adapter", "a/b/c", "a b/c", "../x", ""):
        with pytest.raises(ParameterError, match="allowed is OWNER/NAME"):
            push(run.folder, repository, "mit")
    with pytest.raises(ParameterError, match="--license openrail"):
        push(run.folder, REPOSITORY, dry_run=True)
    with pytest.raises(HubError, match="no token of the hub"):
        push(run.folder, REPOSITORY, "mit")


def test_no_token_exits_with_1_and_a_wrong_name_with_2(run, monkeypatch):
    monkeypatch.setattr("nbs_lib.export.hub.get_token", lambda: None)
    # the command leaves logging disabled
    monkeypatch.setattr("logging.disable", lambda: None)
    for repository, status, words in ((REPOSITORY, 1, "no token"), ("name", 2, "OWNER/NAME")):
        done = CliRunner().invoke(app, ["push", str(run.folder), "--to", repository])
        assert done.exit_code == status and words in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1


def test_a_file_beside_the_repository_is_not_lost(run, dry):
    notes = dry.folder / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(ExportError, match=re.escape("holds 'notes.txt'")):
        push(run.folder, REPOSITORY, "mit", dry_run=True)
    notes.unlink()


def test_pictures_outside_of_a_comparison_are_left_out(tmp_path):
    (compare := tmp_path / "compare").mkdir()
    for path in (tmp_path / "secret.png", compare / "good.png"):
        path.write_bytes(b"picture")
    (compare / "link.png").symlink_to(tmp_path / "secret.png")
    names = ["good.png", "../secret.png", str(tmp_path / "secret.png"), "link.png", "absent.png"]
    pictures = [{"prompt": name, "seed": 0, "files": {"tuned": name}} for name in names]
    shown = card_pictures(compare, {"pictures": pictures})
    assert [picture["prompt"] for picture in shown] == ["good.png"]
