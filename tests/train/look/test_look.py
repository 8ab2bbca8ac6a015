"""The looks of 2_train: the parts of a training, and a batch before and after it."""

import io
import os
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from PIL import Image

from nbs_lib.config import Train
from nbs_lib.launch.side_process import call_in_process
from nbs_lib.models.lora.layers import add_lora
from nbs_lib.run.run import Run
from nbs_lib.train.look import batch_sheet, parts_table
from nbs_lib.train.look.answers import (
    CAPTION,
    EXAMPLE,
    GUIDED,
    NO_CAPTION,
    NOISED,
    STUDENT,
    Column,
    look_at_batch,
)
from nbs_lib.train.look.sheet import decode_rows

CONFIG = Train(mixed_precision="fp32", deepspeed=False, rank=4, alpha=4.0, num_processes=2)


@pytest.fixture(scope="module", autouse=True)
def _one_thread(one_thread):
    """Use one thread, as the processes do."""


def look(run: Run, trained: bool = False, **changed) -> list[Column]:
    return look_at_batch(replace(CONFIG, **changed), run, trained)[1]


def near(a: torch.Tensor, b: torch.Tensor) -> bool:
    # a pass over two rows and one over a single row round differently
    return torch.allclose(a, b, atol=1e-3, rtol=1e-3)


def test_an_untrained_student_is_the_teacher_without_guidance(prepared):
    columns = look(prepared, guidance_scale=3.0)
    assert [column.t for column in columns] == [125, 375, 625, 875], "spread over all levels"
    for column in columns:
        rows = column.latents
        assert list(rows)[:2] == [EXAMPLE, NOISED] and list(rows)[-1] == STUDENT
        assert near(rows[STUDENT], rows[CAPTION])
        # x_0 is linear in the prediction, so guidance is the same there
        assert near(rows[GUIDED], rows[NO_CAPTION] + 3 * (rows[CAPTION] - rows[NO_CAPTION]))
        assert column.loss == pytest.approx(column.first_loss, rel=1e-3) and column.caption


def test_without_held_out_examples_those_of_the_first_step_are_shown(prepared):
    assert len(look(prepared, validation_steps=0)) == 4


@pytest.mark.parametrize("objective", ["finetune", "consistency", "distribution"])
def test_every_objective_has_its_rows(prepared, objective):
    columns = look(prepared, objective=objective, mixed_precision="bf16")
    rows = list(columns[0].latents)
    assert {STUDENT, GUIDED, CAPTION, NO_CAPTION} < set(rows)
    assert (EXAMPLE in rows) == (objective != "distribution")
    assert (columns[0].loss is None) == (objective != "finetune"), "only if its target is fixed"
    if objective == "distribution":
        times = [column.t for column in columns]
        assert times == [999, 749, 499, 249], "each step of its sampling"


def test_the_saved_adapter_moves_the_student_and_no_teacher(prepared, new_run, adapter):
    run = new_run(prepared)
    shutil.copytree(adapter, run.adapter)
    before, after = look(run), look(run, trained=True)
    for old, new in zip(before, after, strict=True):
        assert all(
            near(old.latents[row], new.latents[row]) for row in old.latents if row != STUDENT
        )
        assert not near(old.latents[STUDENT], new.latents[STUDENT])
        assert old.loss != new.loss and new.first_loss == pytest.approx(old.loss, rel=1e-3)


def test_a_row_of_pictures_for_each_prediction(prepared, base):
    columns = look(prepared)[:2]
    pictures = decode_rows(base, columns)
    side = prepared.stage_record("prepare")["parameters"]["resolution"]
    assert pictures.shape == (len(columns[0].latents), 2, side, side, 3)


def test_the_sheet_of_a_notebook_holds_its_picture_and_its_numbers(prepared):
    sheet = batch_sheet(replace(CONFIG, run=str(prepared.folder)))
    html = sheet._repr_html_()
    assert Image.open(io.BytesIO(sheet.png)).width <= 1100, "a page is not wider"
    assert len(sheet.losses) == 4 and "mean loss of these 4 is" in html and "data:image/png" in html
    assert "alt=" in html and str(sheet)


def test_a_batch_that_cannot_be_shown_stops_no_training(prepared, new_run):
    run = new_run(prepared)
    run.cache.unlink()
    run.cache.mkdir()
    config = replace(CONFIG, run=str(run.folder), mixed_precision="fp32")
    sheet = batch_sheet(config)
    assert sheet.png == b"" and "No batch can be shown: FileNotFoundError" in sheet._repr_html_()


def test_the_parts_are_counted(prepared, base):
    config = replace(CONFIG, run=str(prepared.folder), guidance_scale=3.0)
    parameters = add_lora(base.denoiser(), 4, 4.0, seed=0)
    html = parts_table(config)
    # an A and a B for each layer
    count = sum(parameter.numel() for parameter in parameters)
    assert f"LoRA of rank 4: {count:,} parameters on {len(parameters) // 2} layers" in html
    assert "16 examples each: batches of 8 × 2 processes" in html
    assert "w = 3" in html and "MiB planned" in html and "4 are held out" in html
    full = parts_table(replace(config, method="full", zero_stage=2, deepspeed=False))
    assert "every weight of the denoiser" in full


def test_further_hosts_leave_the_looks_to_host_0(tmp_path):
    hosts = {"num_nodes": 2, "node_rank": 1, "master_port": 2000}
    config = replace(CONFIG, run=str(tmp_path / "none"), **hosts)
    assert "host 0" in parts_table(config) and "host 0" in str(batch_sheet(config))


def test_a_function_s_bytes_come_back_from_its_process_and_so_does_its_error():
    assert call_in_process(bytes, b"a\0b") == b"a\0b"
    with pytest.raises(RuntimeError, match="ZeroDivisionError: .*zero"):
        call_in_process(divmod, 1, 0)
    with pytest.raises(RuntimeError, match="it was ended"):
        call_in_process(end_itself)


def end_itself() -> bytes:
    os.kill(os.getpid(), signal.SIGKILL)
