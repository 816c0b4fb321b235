"""Input pipelines side by side: crops of 224 px from JPEGs of about 500 x 400, alone and with the MoCo v2 recipe.

    pip install -e '.[peers]'
    python benchmarks/input_pipeline.py --out docs/results/input_pipeline.json
    python benchmarks/input_pipeline.py --memory --batches 10000

Every pipeline draws RandomResizedCrop(scale 0.2 to 1) in batches of 64 with two threads or worker
processes: tf.data from TFRecord with `decode_and_crop_jpeg`, a torch DataLoader from a folder and
webdataset from tar shards, both with Pillow, and ours from ArrayRecord. tf.data runs the recipe on
the host by tf.image; ours runs it jitted on the device, here this machine's own cores. Each is a
process of its own that waits for its turn; turns alternate and the table gives medians. A peer
that cannot be imported is named as such. --memory runs our loader alone and follows its memory.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

BATCH, SIZE, THREADS = 64, 224, 2
SCALE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)
NEEDS = {"ours": (), "tf.data": ("tensorflow",), "torch": ("torch",), "webdataset": ("webdataset", "torch")}
INSTALL = {"tensorflow": "tensorflow-cpu==2.21.0", "torch": "torch==2.13.0", "webdataset": "webdataset==1.0.2"}
ROWS = {  # contender -> the one it is compared with
  "tf.data crop": "tf.data crop",
  "torch crop": "tf.data crop",
  "webdataset crop": "tf.data crop",
  "ours crop": "tf.data crop",
  "ours two views": "ours crop",
  "tf.data recipe": "tf.data recipe",
  "ours device only": "tf.data recipe",
  "ours recipe": "tf.data recipe",
}


def photographs() -> list:
  """The photographs inside scikit-learn and, where installed, scikit-image, as RGB."""
  from PIL import Image
  from sklearn.datasets import load_sample_images

  found = [Image.fromarray(pixels) for pixels in load_sample_images().images]
  spec = importlib.util.find_spec("skimage")
  names = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "motorcycle_right.png", "rocket.jpg",
           "hubble_deep_field.jpg", "retina.jpg", "ihc.png")  # fmt: skip
  for name in names if spec else ():
    path = pathlib.Path(spec.origin).parent / "data" / name
    if path.exists():
      found.append(Image.open(path).convert("RGB"))
  return found


def make_files(root: pathlib.Path, count: int, width: int = 500, height: int = 400) -> None:
  """`count` JPEGs, each another part of a photograph: a folder, two tar shards, one ArrayRecord."""
  from array_record.python.array_record_module import ArrayRecordWriter
  from PIL import Image

  if (root / "done").exists():
    return
  (root / "folder").mkdir(parents=True, exist_ok=True)
  random, sources, sizes = np.random.default_rng(0), photographs(), []
  with contextlib.ExitStack() as opened:
    tars = [opened.enter_context(tarfile.open(root / f"{shard}.tar", "w")) for shard in range(THREADS)]
    records = ArrayRecordWriter(str(root / "images.array_record"), "group_size:1")
    opened.callback(records.close)
    for number in range(count):
      image = sources[number % len(sources)]
      factor = min(image.width / width, image.height / height) * random.uniform(0.7, 1.0)
      left, top = random.uniform(0, image.width - factor * width), random.uniform(0, image.height - factor * height)
      box = (left, top, left + factor * width, top + factor * height)
      buffer = io.BytesIO()
      image.resize((width, height), Image.Resampling.LANCZOS, box=box).save(buffer, "jpeg", quality=85)
      data = buffer.getvalue()
      sizes.append(len(data))
      (root / "folder" / f"{number:05}.jpg").write_bytes(data)
      entry = tarfile.TarInfo(f"{number:05}.jpg")
      entry.size = len(data)
      tars[number % THREADS].addfile(entry, io.BytesIO(data))
      records.write(data)
  (root / "done").touch()
  print(f"{count} JPEGs of {width} x {height}, {np.mean(sizes) / 1024:.1f} KiB each in the mean, "
        f"from {len(sources)} photographs")  # fmt: skip


class Photographs:
  """A source of mmcontrast: images alone, in an ArrayRecord file."""

  def __init__(self, root: pathlib.Path):
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    from mmcontrast.data.sources import Info

    self._records = ArrayRecordDataSource([str(root / "images.array_record")])
    self.info = Info(name="photographs", styles=("image",), tag_names=(), label_names={}, caption_fields=())

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict:
    return dict(images={"image": self._records[index]}, captions={}, names={}, tags=np.zeros(0, np.uint8), labels={},
                id=index, name=str(index), mirror_safe=True)  # fmt: skip


def ours_batches(root: pathlib.Path, views: int, size: int = SIZE) -> Iterator[dict]:
  """Batches of the training pipeline, decoded anew every time."""
  from mmcontrast.data.pipeline import train_batches

  config = dict(image_size=size, views=dict(image=views), crop=dict(scale=SCALE, ratio=RATIO), cache="none",
                read=dict(threads=THREADS))  # fmt: skip
  return train_batches(config, seed=0, batch_size=BATCH, source=Photographs(root))


def ours(root: pathlib.Path, what: str) -> Callable[[], object]:
  """One batch: cropped alone; in two views; augmented on the device alone; cropped and augmented."""
  batches = ours_batches(root, 2 if what == "two views" else 1)
  if what in ("crop", "two views"):
    return lambda: next(batches)
  import jax

  from mmcontrast.modalities import image_augmentation

  recipe = image_augmentation.parse_recipe("moco_v2")
  augmented = jax.jit(lambda images, seeds: image_augmentation.augment(recipe, images[:, 0], seeds))

  def device(batch):
    return augmented(batch["image"], batch["seed"]).block_until_ready()

  if what == "recipe":
    return lambda: device(next(batches))
  batch = jax.device_put(next(batches))
  batches.close()
  return lambda: device(batch)


def tf_data(root: pathlib.Path, what: str) -> Callable[[], object]:
  """One batch of tf.data, which decodes the crop only; `recipe`: MoCo v2's by tf.image."""
  import tensorflow as tf

  path = str(root / "images.tfrecord")
  if not os.path.exists(path):
    with tf.io.TFRecordWriter(path) as writer:
      for file in sorted((root / "folder").iterdir()):
        writer.write(file.read_bytes())

  def crop(data):
    height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(data))
    area = tf.random.uniform((), *SCALE) * tf.cast(height * width, tf.float32)
    ratio = tf.exp(tf.random.uniform((), *np.log(RATIO)))
    w = tf.minimum(tf.cast(tf.sqrt(area * ratio), tf.int32), width)
    h = tf.minimum(tf.cast(tf.sqrt(area / ratio), tf.int32), height)
    top = tf.random.uniform((), 0, height - h + 1, tf.int32)
    left = tf.random.uniform((), 0, width - w + 1, tf.int32)
    image = tf.image.decode_and_crop_jpeg(data, [top, left, h, w], channels=3)
    return tf.ensure_shape(tf.image.resize(image, (SIZE, SIZE)), (SIZE, SIZE, 3))

  def sometimes(probability, change, image):
    return tf.cond(tf.random.uniform(()) < probability, lambda: change(image), lambda: image)

  def factor(strength):
    return tf.random.uniform((), 1 - strength, 1 + strength)

  def jitter(image):
    image = tf.clip_by_value(image * factor(0.4), 0, 1)
    image = tf.clip_by_value(tf.image.adjust_contrast(image, factor(0.4)), 0, 1)
    image = tf.clip_by_value(tf.image.adjust_saturation(image, factor(0.4)), 0, 1)
    return tf.image.adjust_hue(image, tf.random.uniform((), -0.1, 0.1))

  def blur(image):
    offsets = tf.range(-11, 12, dtype=tf.float32)  # 23 taps: a tenth of the image
    taps = tf.nn.softmax(-tf.square(offsets / tf.random.uniform((), 0.1, 2.0)) / 2)
    taps = tf.tile(tf.reshape(taps, (23, 1, 1, 1)), (1, 1, 3, 1))
    image = tf.nn.depthwise_conv2d(image[None], taps, (1, 1, 1, 1), "SAME")
    return tf.nn.depthwise_conv2d(image, tf.transpose(taps, (1, 0, 2, 3)), (1, 1, 1, 1), "SAME")[0]

  def recipe(image):
    image = tf.image.random_flip_left_right(image / 255)
    image = sometimes(0.8, jitter, image)
    image = sometimes(0.2, lambda x: tf.tile(tf.image.rgb_to_grayscale(x), (1, 1, 3)), image)
    return sometimes(0.5, blur, image)

  if what == "crop":
    example = lambda data: tf.cast(crop(data), tf.uint8)  # noqa: E731
  else:
    example = lambda data: recipe(crop(data))  # noqa: E731
  options = tf.data.Options()
  options.threading.private_threadpool_size = THREADS
  dataset = tf.data.TFRecordDataset(path).repeat().map(example, num_parallel_calls=THREADS, deterministic=True)
  batches = iter(dataset.batch(BATCH).prefetch(4).with_options(options))
  return lambda: next(batches)


def pillow_crop(data: bytes) -> np.ndarray:
  """torchvision's RandomResizedCrop on a Pillow image: uint8 [SIZE, SIZE, 3]."""
  from PIL import Image

  image = Image.open(io.BytesIO(data)).convert("RGB")
  area = np.random.uniform(*SCALE) * image.width * image.height
  ratio = np.exp(np.random.uniform(*np.log(RATIO)))
  width, height = min(int(np.sqrt(area * ratio)), image.width), min(int(np.sqrt(area / ratio)), image.height)
  left, top = np.random.randint(image.width - width + 1), np.random.randint(image.height - height + 1)
  image = image.crop((left, top, left + width, top + height))
  return np.array(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


class Folder:
  """A torch dataset: the crop of each file of a folder, many times over."""

  def __init__(self, root: pathlib.Path):
    self._paths = sorted((root / "folder").iterdir())

  def __len__(self) -> int:
    return 1000 * len(self._paths)

  def __getitem__(self, index: int) -> np.ndarray:
    return pillow_crop(self._paths[index % len(self._paths)].read_bytes())


def torch_loader(root: pathlib.Path, what: str) -> Callable[[], object]:
  """One batch of torch's DataLoader."""
  import torch

  batches = iter(torch.utils.data.DataLoader(Folder(root), BATCH, shuffle=True, num_workers=THREADS, prefetch_factor=4))
  return lambda: next(batches)


def webdataset_loader(root: pathlib.Path, what: str) -> Callable[[], object]:
  """One batch of webdataset's loader, a tar shard for each worker."""
  import webdataset

  shards = [str(root / f"{shard}.tar") for shard in range(THREADS)]
  dataset = webdataset.WebDataset(shards, shardshuffle=False).repeat().to_tuple("jpg").map_tuple(pillow_crop)
  loader = webdataset.WebLoader(dataset.batched(BATCH), batch_size=None, num_workers=THREADS, prefetch_factor=4)
  batches = iter(loader)
  return lambda: next(batches)


FAMILIES = {"ours": ours, "tf.data": tf_data, "torch": torch_loader, "webdataset": webdataset_loader}


def serve(contender: str, root: pathlib.Path) -> None:
  """A contender's process: for each line on stdin, seconds, one timed window; its figures on stdout."""
  family, _, what = contender.partition(" ")
  run = FAMILIES[family](root, what)
  for _ in range(3):
    run()
  print("ready", flush=True)
  for line in sys.stdin:
    for seconds in (float(line) / 4, float(line)):  # the first to get going again, the second counts
      start, used, batches = time.perf_counter(), processor_seconds(), 0
      while time.perf_counter() - start < seconds:
        run()
        batches += 1
    examples = batches * BATCH
    print(examples / (time.perf_counter() - start), 1000 * (processor_seconds() - used) / examples, flush=True)


def processor_seconds() -> float:
  """Processor time of this process and its workers so far, all threads."""
  ticks = 0
  for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
    try:
      fields = path.read_text().rpartition(")")[2].split()
    except OSError:  # it has just ended
      continue
    if int(fields[2]) == os.getpgrp():
      ticks += int(fields[11]) + int(fields[12])
  return ticks / os.sysconf("SC_CLK_TCK")


def measure(contenders: Sequence[str], root: pathlib.Path, rounds: int, seconds: float) -> list[dict]:
  """Windows of all contenders in turns; one row each with its median, and why one did not run."""
  processes, missing = {}, {}
  for contender in contenders:
    needs = [name for name in NEEDS[contender.partition(" ")[0]] if not importlib.util.find_spec(name)]
    if needs:
      missing[contender] = "not installed: pip install " + " ".join(INSTALL[name] for name in needs)
      continue
    command = [sys.executable, __file__, "--serve", contender, "--data", str(root)]
    # A process group each, stopped while others have their turn: nobody prefetches then.
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    processes[contender] = subprocess.Popen(command, **pipes, start_new_session=True)
    expect(processes[contender], contender, "ready")
    os.killpg(processes[contender].pid, signal.SIGSTOP)
  windows = {contender: [] for contender in processes}
  for _ in range(rounds):
    for contender, process in processes.items():
      os.killpg(process.pid, signal.SIGCONT)
      process.stdin.write(f"{seconds}\n")
      process.stdin.flush()
      windows[contender].append([float(figure) for figure in expect(process, contender).split()])
      os.killpg(process.pid, signal.SIGSTOP)
  for process in processes.values():
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
  rates = {contender: [rate for rate, _ in windows[contender]] for contender in windows}
  rows = []
  for contender in contenders:
    row = {"pipeline": contender}
    if contender in missing:
      rows.append(row | {"note": missing[contender]})
      continue
    found = rates[contender]
    row |= {"examples_per_second": round(statistics.median(found), 1), "min": round(min(found), 1),
            "max": round(max(found), 1),
            "core_ms": round(statistics.median(ms for _, ms in windows[contender]), 2)}  # fmt: skip
    if (reference := ROWS[contender]) in rates:
      ratios = [mine / other for mine, other in zip(rates[contender], rates[reference])]
      row |= {"ratio": round(statistics.median(ratios), 3), "to": reference}
    rows.append(row)
  return rows


def expect(process: subprocess.Popen, contender: str, line: str | None = None) -> str:
  """The next line of a contender, which is `line` if given."""
  while True:
    found = process.stdout.readline()
    if not found:
      raise SystemExit(f"{contender} stopped; its error is above")
    if line is None or found.strip() == line:
      return found


def follow_memory(root: pathlib.Path, batches: int) -> list[dict]:
  """Resident memory of our loader, 64 px, ten times over `batches` batches."""
  import resource

  iterator, rows = ours_batches(root, 2, 64), []
  for done in range(1, batches + 1):
    next(iterator)
    if done % (batches // 10) == 0:
      pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
      rows.append({"batches": done, "resident_mib": pages * resource.getpagesize() / 2**20})
  iterator.close()
  return rows


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", help="write the JSON here")
  parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(".cache/input_pipeline"), help="made here once")
  parser.add_argument("--images", type=int, default=2000)
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--seconds", type=float, default=4.0, help="of one window")
  parser.add_argument("--contenders", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="NAME")
  parser.add_argument("--memory", action="store_true", help="follow the memory of our loader instead")
  parser.add_argument("--batches", type=int, default=10_000, help="with --memory")
  parser.add_argument("--serve", help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.serve:
    return serve(options.serve, options.data)
  if options.memory:
    root = options.data / "small"
    make_files(root, 200, 120, 96)
    rows = follow_memory(root, options.batches)
  else:
    make_files(options.data, options.images)
    rows = measure(options.contenders, options.data, options.rounds, options.seconds)
  from record import record

  record(rows, options.out)


if __name__ == "__main__":
  here = pathlib.Path(__file__).resolve().parent
  sys.path[:0] = [str(here), str(here.parent)]
  os.environ["PYTHONPATH"] = os.pathsep.join([str(here.parent), os.environ.get("PYTHONPATH", "")])
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  main()
