# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own pictures and captions
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/NAME/blob/main/notebooks/own_data.ipynb)
#
# From a table of pictures and captions to a CLIP of your own: looked at, tokenized, trained, measured, used, and
# exported to transformers. Without data of yours, small drawings are made, so that every cell runs.

# %% cellView="form"
# @title Install
# @markdown In a checkout nothing need be filled in. Elsewhere give the address of the repository, such as
# @markdown `https://github.com/OWNER/NAME`. Add `,cuda` or `,tpu` to the extras on a GPU or a TPU.
repository = "ADDRESS"  # @param {type:"string"}
extras = "text"  # @param {type:"string"}

import os
import pathlib
import subprocess
import sys

above = [pathlib.Path.cwd(), *pathlib.Path.cwd().parents]
checkout = next((path for path in above if (path / "mmcontrast" / "__init__.py").is_file()), None)
if not checkout and repository == "ADDRESS":
  raise ValueError("fill in `repository`: the address of the page where you found this notebook")
extras = f"[{extras}]" if extras else ""
package = f"{checkout}{extras}" if checkout else f"mmcontrast{extras} @ git+{repository}"
done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", package], capture_output=True, text=True)
if done.returncode:
  raise RuntimeError(done.stderr)
small = os.environ.get("MMCONTRAST_NOTEBOOKS") == "small"  # seconds instead of minutes, for tests

# %% [markdown]
# ## The data
#
# A table with a line for each picture, such as `{"image": "images/0001.jpg", "caption": "a red bicycle"}`; paths are
# seen from the table's folder. CSV, Parquet, folders of pictures, COCO's format and WebDataset shards are read too, and
# `gs://` and `s3://` addresses. Give yours as `jsonl:/content/drive/MyDrive/mine.jsonl`; nothing is copied.

# %% cellView="form"
# @title Data
data = ""  # @param {type:"string"}

import json

import PIL.Image
import PIL.ImageDraw

COLOURS = ["red", "green", "blue", "yellow", "purple", "orange", "black", "pink"]
SHAPES = {"disc": "ellipse", "box": "rectangle", "bar": "rectangle", "ring": "ellipse"}


def draw(colour, shape, left, top, side):
  image = PIL.Image.new("RGB", (96, 96), "white")
  box = (left, top, left + side, top + (side // 4 if shape == "bar" else side))
  outline = {"outline": colour, "width": 6} if shape == "ring" else {"fill": colour}
  getattr(PIL.ImageDraw.Draw(image), SHAPES[shape])(box, **outline)
  return image


if not data:
  folder = pathlib.Path("drawings")
  folder.mkdir(exist_ok=True)
  with (folder / "table.jsonl").open("w") as table:
    for number in range(96 if small else 640):
      colour, shape = COLOURS[number % 8], list(SHAPES)[number // 8 % 4]
      image = draw(colour, shape, 4 + 7 * number % 32, 4 + 11 * number % 32, 36 + 5 * number % 20)
      image.save(folder / f"{number}.png")
      words = f"a {colour} {shape}" if number % 2 else f"a drawing of a {shape}, {colour}"
      table.write(json.dumps({"image": f"{number}.png", "caption": words, "shape": shape}) + "\n")
  data = f"jsonl:{folder.resolve()}/table.jsonl"
print(data)

# %% [markdown]
# ## Look at them first
#
# Counts, columns and bad records; the sheet shows what a model will see. Options of the data, such as which column is
# the caption, are on the page [Your own data](../docs/data.md).

# %%
from IPython.display import Image, display

import mmcontrast
from mmcontrast import cli


def run_command(*words):
  """What `mmcontrast WORDS` does on the command line; an error ends the cell."""
  if code := cli.main(list(words)):
    raise SystemExit(code)


run_command("data", "inspect", data, "--out", "sheet.png")
display(Image("sheet.png"))

# %% [markdown]
# ## A tokenizer of their words
#
# The vocabulary is made as large as the captions allow, and no larger than asked for.

# %%
run_command("data", "tokenizer", data, "--source.image=None", "--vocab_size", "4000", "--out", "mine.model")

# %% [markdown]
# ## Train
#
# `own_data` is CLIP with a ViT and a causal transformer, which other packages load; a tenth of the examples is held
# out. `size=small,image_size=224,patch=16` is for a GPU or a TPU; `tiny` at 64 pixels takes two minutes on two CPU
# cores.

# %% cellView="form"
# @title Train
size = "tiny"  # @param ["tiny", "small", "base"]
image_size = 64  # @param {type:"integer"}
patch = 16  # @param {type:"integer"}
epochs = 10  # @param {type:"number"}
batch = 64  # @param {type:"integer"}
run = "runs/own_data"  # @param {type:"string"}

arguments = f"size={size},image_size={image_size},patch={patch},epochs={epochs},batch={batch},text_length=24"
config = mmcontrast.load_config("own_data:smoke" if small else f"own_data:{arguments}")
config["data"]["dataset"] = data
config["data"]["tokenizer"] = "mine.model"
config["log"]["every_steps"] = 10
state = mmcontrast.train(config, run)
display(Image(f"{run}/losses.png"))

# %% [markdown]
# ## Measure
#
# Retrieval among the held-out examples. Captions of the same words share their pictures.

# %%
results = mmcontrast.evaluate(run)
display(Image(f"{run}/retrieval.png"))

# %% [markdown]
# ## Use

# %% cellView="form"
# @title Search
words = "a blue ring"  # @param {type:"string"}

for one in mmcontrast.search(run, words, data, count=8, out="found.png"):
  print(one.line)
display(Image("found.png"))

# %% [markdown]
# Zero-shot: classes are words. A picture that was not trained on:

# %%
model = mmcontrast.load(run)
picture = draw("blue", "ring", 20, 14, 50)
display(picture)
classes = [f"{colour} {shape}" for colour in ("red", "blue") for shape in SHAPES]
probabilities = model.classify([picture], classes, templates=["a {}"])
for name, probability in sorted(zip(classes, probabilities[0]), key=lambda pair: -pair[1]):
  print(f"{probability:6.1%}  {name}")

# %% [markdown]
# ## Take it elsewhere
#
# A folder that transformers loads (`CLIPModel.from_pretrained`). `open_clip`, `timm`, `stablehlo` and `onnx` are the
# other formats.

# %%
import shutil

shutil.rmtree("exported", ignore_errors=True)
run_command("export", "--workdir", run, "--to", "hf", "--out", "exported")
print(*sorted(path.name for path in pathlib.Path("exported").iterdir()))
