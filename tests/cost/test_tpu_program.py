"""Reading a program that was compiled for a TPU, and what is said where none can be compiled."""

import importlib.util
import pathlib

import pytest

from mmcontrast.cli import main
from mmcontrast.cost import tpu_program, tpu_slice
from mmcontrast.cost.tpu_program import CHIPS, Collective, by_part, by_source, collectives, instructions, part
from mmcontrast.errors import UserError

CHIP = CHIPS["TPU v5 lite"]
# The form of `compiled.as_text()`: a loop of three turns, a kernel, a fused and a plain collective.
PROGRAM = (pathlib.Path(__file__).parents[1] / "golden" / "tpu_program.txt").read_text()


def test_cycles_with_the_turns_of_loops_and_kernels_by_their_operations():
  listed = instructions(PROGRAM, CHIP)
  # Kernel: 2 x 197e6 operations at 197e12 a second and 1.5e9 cycles a second, and sixteen passes over 4096 numbers.
  assert [one.cycles for one in listed] == [3000 + 16, 300, 30, 7, 5]
  assert listed[1].kind == "fusion" and listed[1].result.startswith("bf16[4,8]")
  assert by_part(listed) == {"towers.text": 3016, "towers.image": 330, "loss": 7, "optimizer": 5}
  assert [one.cycles for one in by_source(listed)] == [3016, 330, 7, 5]


def test_blocks_one_by_one_are_counted_together():
  program = PROGRAM.replace(
    'ViT/while/body/fc1"}, backend_config={"estimated_cycles":"100',
    'ViT/blocks_0/fc1"}, backend_config={"estimated_cycles":"100',
  ).replace("ViT/while/body/fc1", "ViT/blocks_11/fc1")
  assert by_source(instructions(program, CHIP))[1][:2] == (330, "fusion")


def test_a_kernel_that_moves_more_than_it_computes_costs_its_way_to_memory():
  heavy = PROGRAM.replace('"bytes_accessed":"8"', '"bytes_accessed":"819000000"')
  assert instructions(heavy, CHIP)[0].cycles == pytest.approx(1.5e6)  # a millisecond


def test_collectives_count_each_channel_once_and_say_which_are_hidden():
  assert collectives(PROGRAM) == [
    Collective("all-gather", "other", 1, 8 * 8 * 4, 1),
    Collective("all-reduce", "other", 3, 3 * (2 * 8 * 2 + 4 * 4), 0),
  ]


def test_transfers_are_told_for_each_part_and_those_that_start_early_are_hidden():
  program = PROGRAM.replace("channel_id=3,", 'channel_id=3, metadata={op_name="jit(train_step)/optimizer/add"},')
  program = program.replace(
    "  %loop =",
    "  %sent = (f32[4,8]{1,0}, f32[4,8]{1,0}, u32[], u32[]) collective-permute-start(%x), channel_id=9, "
    'metadata={op_name="jit(train_step)/loss/dot"}\n  %loop =',
  )
  by_kind = {one.kind: one for one in collectives(program)}
  assert by_kind["all-reduce"].part == "optimizer"
  assert by_kind["collective-permute"] == Collective("collective-permute", "loss", 1, 4 * 8 * 4, 1)


def test_what_is_waited_for_by_the_formulas_of_rings():
  transfers = [
    Collective("all-reduce", "optimizer", 2, 180_000_000, 1),  # half of it is hidden
    Collective("all-gather", "towers.image", 1, 10**9, 1),
    Collective("reduce-scatter", "towers.image", 1, 1_000_000, 0),
  ]
  waited = tpu_program.seconds_waited(transfers, devices=8, chip=CHIP)
  assert waited == pytest.approx((2 * 90_000_000 + 8 * 1_000_000) / 1.8e11)


def test_fusions_that_only_move_an_array_count_as_copies():
  moving = "\n".join(
    [
      "%stored (p: bf16[3,4]) -> bf16[3,4] {",
      "  %p = bf16[3,4]{1,0} parameter(0)",
      "  %q = bf16[1,4]{1,0} parameter(1)",
      "  ROOT %u = bf16[3,4]{1,0} dynamic-update-slice(%p, %q)",
      "}",
      "",
      "%zeros (c: bf16[]) -> bf16[3,4] {",
      "  %c = bf16[] constant(0)",
      "  ROOT %b = bf16[3,4]{1,0} broadcast(%c)",
      "}",
      "",
      "ENTRY %main (x: bf16[3,4]) -> bf16[3,4] {",
      '  %s = bf16[3,4]{1,0} fusion(%x, %y), calls=%stored, backend_config={"estimated_cycles":"9"}',
      '  %t = bf16[3,4]{0,1} copy(%s), backend_config={"estimated_cycles":"8"}',
      '  %z = bf16[3,4]{1,0} fusion(%x), calls=%zeros, backend_config={"estimated_cycles":"7"}',
      '  ROOT %a = bf16[3,4]{1,0} add(%t, %z), backend_config={"estimated_cycles":"6"}',
      "}",
    ]
  )
  listed = instructions(moving, CHIP)
  assert [one.kind for one in listed] == ["move", "copy", "fusion", "add"]
  assert tpu_program.copies(listed) == 2


@pytest.mark.parametrize(
  "source, name",
  [
    ("jit(train_step)/transpose(jvp(towers.image))/ViT/blocks/mlp/fc1", "towers.image"),
    ("jit(train_step)/jvp(loss)/dot", "loss"),
    ("jit(train_step)/loss/heads.image_joint/dot", "heads.image_joint"),
    ("jit(train_step)/augmentation/where", "augmentation"),
    ("jit(train_step)/add", "other"),
    ("", "other"),
  ],
)
def test_parts(source, name):
  assert part(source) == name


def test_bytes_of_results():
  assert tpu_program._sizes("(pred[8]{0}, s32[]{:S(2)}, bf16[2,3]{1,0:T(8,128)(2,1)S(1)})") == [8, 4, 12]


def test_out_of_memory_is_read_with_its_units():
  error = RuntimeError(
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
    "(69.58G) exceeds available HBM (15.75G)"
  )
  needed, there = tpu_slice.too_much(error)
  assert (needed, there) == (round(69.58 * 2**30), round(15.75 * 2**30))
  assert tpu_slice.too_much(RuntimeError("INTERNAL: something else")) is None


def test_what_is_tried_when_it_does_not_fit_adds_up_in_order():
  config = {
    "towers": {"image": {"name": "vit"}, "text": {"name": "resnet18"}},
    "sharding": "dp",
    "mesh": {},
    "batch": {"size": 12, "microbatches": 1},
  }
  tried = list(tpu_slice.roomier(config))
  assert [written for written, _ in tried] == [
    "--config.towers.image.remat=keep_products",
    "--config.towers.image.remat=full",
    "--config.sharding=fsdp --config.mesh.data=1 --config.mesh.fsdp=-1",
    "--config.batch.microbatches=2",
    "--config.batch.microbatches=4",
  ]
  last = tried[-1][1]
  assert (last["towers"]["image"]["remat"], last["sharding"], last["batch"]["microbatches"]) == ("full", "fsdp", 4)
  assert config["towers"]["image"] == {"name": "vit"}  # untouched


@pytest.mark.parametrize(
  "words, message",
  [
    (["--dry_run", "--topology", "v5litepod-16"], "16 chips: v5e:4x4"),
    (["--dry_run", "--topology", "v5p-128"], "64 chips: v5p:4x4x4"),
    (["--dry_run", "--topology", "V5E:2x4"], "did you mean 'v5e:2x4'"),
    (["--dry_run", "--topology", "v7x:2x2x1"], "forms: v5e:4x4"),
    (["--dry_run", "--topology", "v5e:16"], "did you mean"),
    (["--dry_run", "--topology", "v5e:2x4", "--devices", "8"], "without --devices"),
    (["--workdir", "runs/x", "--topology", "v5e:2x4"], "with --dry_run"),
  ],
)
def test_mistakes_are_said_before_anything_is_compiled(capsys, words, message):
  assert main(["train", "--config", "clip:smoke", *words]) == 2
  assert message in capsys.readouterr().err


def test_without_libtpu_the_extra_is_named(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(UserError, match=r"pip install 'mmcontrast\[tpu_compile\]'"):
    tpu_slice.slice_devices("v5e:2x4")
