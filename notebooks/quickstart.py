# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quickstart: train on drawings and their names, then search with your own words and picture
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/NAME/blob/main/notebooks/quickstart.ipynb)
#
# An image encoder and a text encoder are trained together, by five contrastive terms, on 1,903 emoji: each drawn by two
# artists, each with several English names. Then both are searched by words and by a picture. A CPU is enough; a GPU or
# a TPU is used where there is one.

# %% cellView="form"
# @title Install
# @markdown In a checkout nothing need be filled in. Elsewhere give the address of the repository, such as
# @markdown `https://github.com/OWNER/NAME`. Add `,cuda` or `,tpu` to the extras on a GPU or a TPU.
repository = "ADDRESS"  # @param {type:"string"}
extras = "emoji"  # @param {type:"string"}

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
# They are built from packages, and lie in `~/.cache/mmcontrast/data`. Google's drawings of the same emoji are not
# trained on: they show what was learned beyond the drawings themselves.

# %% cellView="form"
# @title Build the data
held_out_style = True  # @param {type:"boolean"}

import mmcontrast
from mmcontrast.data.build import build_dataset

print(build_dataset("emoji_views"))
if held_out_style and not small:
  try:
    print(build_dataset("emoji_noto"))
  except mmcontrast.UserError as error:  # it needs npm, or Debian's font
    print(f"without the held-out style: {error}")

# %% [markdown]
# ## Train
#
# 300 steps take about two minutes on two CPU cores; the quickstart has 1,800. Run the cell again after an interruption,
# and it continues from the last checkpoint. To train anew, give another folder.

# %% cellView="form"
# @title Train
steps = 300  # @param {type:"integer"}
folder = "runs/quickstart"  # @param {type:"string"}

steps = 3 if small else steps
config = mmcontrast.load_config("quickstart:smoke" if small else "quickstart")
config["steps"] = steps
config["checkpoint"]["every_steps"] = min(steps, 100)
if small:
  config["evaluation"]["evaluators"] = {"retrieval": {}}
state = mmcontrast.train(config, folder)

# %%
from IPython.display import Image, display

display(Image(f"{folder}/losses.png"))

# %% [markdown]
# ## What it retrieves
#
# R@1 is the share of queries whose nearest neighbour is right. The picture shows queries drawn at random, right answers
# in green.

# %%
results = mmcontrast.evaluate(folder)
display(Image(f"{folder}/retrieval.png"))

# %% [markdown]
# ## Search with your words
#
# The drawings whose embeddings are nearest to that of the words.

# %% cellView="form"
# @title Words
words = "red heart"  # @param {type:"string"}
style = "emoji_views:twemoji"  # @param ["emoji_views:twemoji", "emoji_views:openmoji", "emoji_noto"]

found = mmcontrast.search(folder, words, dataset=style, count=8, out="words.png")
for one in found:
  print(one.line)
display(Image("words.png"))

# %% [markdown]
# ## Search with your picture
#
# Give the path of an image; in Colab, drag one into the file list at the left. Without one, a yellow disc is drawn.

# %% cellView="form"
# @title Picture
picture = ""  # @param {type:"string"}

if not picture:
  import PIL.Image
  import PIL.ImageDraw

  drawn = PIL.Image.new("RGB", (128, 128), "white")
  PIL.ImageDraw.Draw(drawn).ellipse((16, 16, 112, 112), fill="gold", outline="black", width=3)
  picture = "drawn.png"
  drawn.save(picture)
found = mmcontrast.search(folder, picture, dataset=style, count=8, out="picture.png")
for one in found:
  print(one.line)
display(Image("picture.png"))

# %% [markdown]
# ## The model in Python
#
# A run is a folder: weights, preprocessing and tokenizer. Cosines of unit rows:

# %%
model = mmcontrast.load(folder)
print(model)
print(model.encode_image([picture]) @ model.encode_text(["the sun", "a blue car", "a coin"]).T)

# %% [markdown]
# Next: [what the five terms do](mct_explained.ipynb), [your own data](own_data.ipynb), [what a TPU pod would
# do](tpu_dry_run.ipynb).
