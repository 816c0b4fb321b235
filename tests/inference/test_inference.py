"""A model as two functions: what they take, and that the number given at once changes nothing."""

import io
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny import tiny_inference

from mmcontrast.data.transforms import evaluation_view
from mmcontrast.errors import UserError
from mmcontrast.inference import Inference


@pytest.fixture(scope="module")
def model():
  return tiny_inference()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
  """Photographs of several sizes: arrays, and the paths where they are."""
  draw, folder = np.random.default_rng(1), tmp_path_factory.mktemp("pictures")
  arrays = [draw.integers(0, 255, (20 + number, 31 - 2 * number, 3), np.uint8) for number in range(8)]
  for number, array in enumerate(arrays):
    Image.fromarray(array).save(folder / f"{number}.png")
  return arrays, [folder / f"{number}.png" for number in range(8)]


def test_images_of_any_form_and_number(model, pictures):
  arrays, paths = pictures
  rows = model.encode_image(paths)
  assert rows.shape == (8, 4) and rows.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
  assert np.unique(rows.round(4), axis=0).shape == (8, 4)
  views = np.stack([evaluation_view(array, model.data) for array in arrays])
  np.testing.assert_array_equal(rows, model.embed("image", views))
  np.testing.assert_allclose(model.encode_image([Image.open(paths[0]), arrays[1], str(paths[2])]), rows[:3], atol=1e-6)
  for one in (paths[3], str(paths[3]), Image.open(paths[3]), arrays[3]):
    np.testing.assert_allclose(model.encode_image(one), rows[3:4], atol=1e-6)
  np.testing.assert_allclose(model.encode_image(np.stack([arrays[0]] * 2)), rows[[0, 0]], atol=1e-6)
  np.testing.assert_allclose(model.encode_image(path for path in paths), rows, atol=1e-6)


def test_texts(model):
  texts = [f"{'a' * number}" for number in range(1, 14)]
  rows = model.encode_text(texts)
  assert rows.shape == (13, 4) and rows.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
  np.testing.assert_allclose(model.encode_text("aa"), rows[1:2], atol=1e-6)
  np.testing.assert_allclose(model.encode_text(tuple(texts[:3])), rows[:3], atol=1e-6)


def test_few_are_padded_to_few_shapes(model):
  shapes = []
  counting = tiny_inference()
  counting._encode = lambda kind, variables, values: shapes.append(len(values)) or np.zeros((len(values), 4))
  for count in (1, 2, 3, 4, 5, 6, 7, 20):
    assert len(counting.encode_text(["a"] * count)) == count
  assert shapes == [1, 2, 4, 4, 6, 6, 6, 6, 6, 6, 6, 6]  # the largest are whole batches


def test_without_a_joint_space_images_are_the_towers_features(pictures):
  alone = tiny_inference(image="", text="")
  rows = alone.encode_image(pictures[0][:2])
  assert rows.shape == (2, 8)
  np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
  with pytest.raises(UserError, match=r"encode_text: config\.evaluation\.text names no head"):
    alone.encode_text("a")


@pytest.mark.parametrize(
  "wrong, message",
  [
    ([], "nothing to encode"),
    (["/nowhere/cat.png"], "/nowhere/cat.png: No such file"),
    (np.zeros((4, 4), np.uint8), r"image 0: uint8 \[4, 4\] is not uint8 \[H, W, 3\]; grey .* Image.fromarray\(image\)"),
    ([np.zeros((4, 4, 3), np.float32)], r"float32 \[4, 4, 3\] is not uint8 .* \(255 \* image\)\.round\(\)"),
    (np.full((2, 4, 4, 3), -1.5), r"image 0: float64 \[4, 4, 3\] .*; its values are -1\.5 to -1\.5"),
    (np.zeros((3, 8, 8), np.uint8), r"\[3, 8, 8\] is not .*; channels come last here: image.transpose\(1, 2, 0\)"),
    (np.zeros((4, 4, 4), np.uint8), r"grey and transparent images by Pillow"),
    (np.zeros((4, 4, 3), np.int64), r"int64 .*; of values in \[0, 255\]: image.astype\('uint8'\)"),
    ([np.zeros((0, 4, 3), np.uint8)], "is not uint8"),
    (np.uint8(3), "is not uint8"),
    (np.zeros((0, 4, 4, 3), np.uint8), "encode_image: nothing to encode"),
    ([b"bytes"], "image 0: not a readable image .* give a path, a Pillow image"),
    (b"bytes", "image 0: not a readable image"),
    (b"", "empty image"),
    (["{good}", None], "image 1: None is not an image; give a path"),
    (None, "encode_image: None is not an image; give a path"),
    (7, "encode_image: 7 is not an image"),
    ([["a.png"]], r"image 0: \['a.png'\] is not an image"),
    ({"a": "b.png"}, "encode_image: a dict has no order"),
    ({"a.png"}, "encode_image: a set has no order"),
    ([io.BytesIO(b"x")], "image 0: a BytesIO is not an image"),
    ("a\0b.png", "null byte.*; give the path of an image"),
    ("/", "/: Is a directory"),
    ("https://example.org/cat.png", "cat.png: No such file .*; download it first"),
    ([Image.new("RGB", (0, 5))], "image 0: an image of 0 x 5 pixels"),
    (Image.new("I", (4, 4)), "32-bit values"),
  ],
)
def test_what_is_no_image(model, pictures, wrong, message):
  wrong = (
    [pictures[1][0] if isinstance(one, str) and one == "{good}" else one for one in wrong]
    if isinstance(wrong, list)
    else wrong
  )
  with pytest.raises(UserError, match=message) as caught:
    model.encode_image(wrong)
  assert "\n" not in str(caught.value)


def test_what_is_no_file_of_an_image_and_no_text(model, tmp_path):
  (tmp_path / "note.png").write_text("no image")
  with pytest.raises(UserError, match=r"note\.png: not a readable image"):
    model.encode_image(tmp_path / "note.png")
  for wrong, message in (
    ([], "nothing to encode"),
    (["a", None], "None is not a text, number 1 of 2"),
    (b"a", "b'a' is bytes, not text"),
    (None, "None is not a text"),
    (7, "7 is not a text"),
    ([["a"]], r"\['a'\] is not a text"),
    ([b"a"], "b'a' is not a text"),
    ({"a": 1}, "a dict has no order"),
    ({"a"}, "a set has no order"),
    ([float("nan")], "nan is not a text"),
    ([tmp_path], "is not a text"),
    (np.array([1, 2]), "a int64 is not a text"),
  ):
    with pytest.raises(UserError, match=message):
      model.encode_text(wrong)


def test_every_form_of_image_and_text_is_taken(model, pictures):
  arrays, paths = pictures
  rows = model.encode_image(arrays[0])
  data = paths[0].read_bytes()
  for one in (
    data,
    bytearray(data),
    [data],
    jnp.asarray(arrays[0]),
    np.array([str(paths[0])]),
    (path for path in paths[:1]),
    (paths[0],),
  ):
    np.testing.assert_allclose(model.encode_image(one), rows, atol=1e-6)
  for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "La", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "I;16"):
    assert model.encode_image(Image.new(mode, (9, 7))).shape == (1, 4), mode
  clear = [model.view(Image.new(mode, (9, 7))) for mode in ("LA", "RGBA", "RGBa", "La")]
  assert all((view == 255).all() for view in clear)  # what is transparent is white, premultiplied too
  texts = model.encode_text(["aa", "b"])
  for form in (("aa", "b"), np.array(["aa", "b"]), iter(["aa", "b"])):
    np.testing.assert_array_equal(model.encode_text(form), texts)
  np.testing.assert_allclose(model.encode_text(np.array("aa")), texts[:1], atol=1e-6)


def learned(**term):
  """A model whose term between the two heads has learned a scale of 20, or is `term`."""
  temperature = dict(init=0.07, learned=True)
  found = tiny_inference()
  config = {
    **found.config,
    "objective": dict(pairs=dict(query="image[0]/pictures", key="text[0]/words", temperature=temperature) | term),
  }
  variables = {
    **found.variables,
    "params": {**found.variables["params"], "terms": {"pairs": {"log_scale": np.float32(np.log(20))}}},
  }
  return Inference(config, found.model, variables, found.tokenizer, 7)


def test_zero_shot_is_the_softmax_of_the_scaled_cosines(pictures):
  model = learned()
  assert model.logit_scale == pytest.approx(20) and model.temperature == pytest.approx(0.05)
  assert model.logit_bias is None
  images, classes = pictures[0][:3], ["cat", "mouse", ["a", "elephant"]]
  prompts = model.encode_text(["the cat", "the mouse", "the a", "the elephant"])
  rows = np.stack([prompts[0], prompts[1], prompts[2:].mean(0) / np.linalg.norm(prompts[2:].mean(0))])
  scores = np.exp(20 * model.encode_image(images) @ rows.T)
  found = model.classify(images, classes, ["the {}"])
  np.testing.assert_allclose(found, scores / scores.sum(1, keepdims=True), atol=1e-5)
  assert found.dtype == np.float32
  sharper = model.classify(images, classes, "the {}", temperature=0.01)
  assert (sharper.max(1) > found.max(1)).all() and (sharper.argmax(1) == found.argmax(1)).all()
  np.testing.assert_allclose(model.classify(images[0], "cat"), [[1]])
  with pytest.raises(UserError, match=r"templates: 'the' must hold '\{\}' once"):
    model.classify(images, classes, ["the"])


def test_the_example_of_the_readme_runs(pictures, tmp_path, monkeypatch, capsys):
  """With a small run in the place of an imported CLIP."""
  readme = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
  (example,) = re.findall(r"```python\n(import mmcontrast\n.*?)```", readme, re.DOTALL)
  for name, array in zip(("cat.jpg", "dog.jpg"), pictures[0]):
    Image.fromarray(array).save(tmp_path / name)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr("mmcontrast.load", lambda workdir: learned())
  names = {}
  exec(example, names)
  assert names["image_rows"].shape == names["text_rows"].shape == (2, 4)
  np.testing.assert_allclose(names["probabilities"].sum(axis=1), 1, atol=1e-6)
  assert "0.05" in capsys.readouterr().out  # the temperature


def test_without_a_learned_temperature_one_is_asked_for(model, pictures):
  for one in (model, learned(temperature=dict(schedule=dict(name="constant", value=0.1)))):
    assert one.logit_scale is None and one.temperature is None
    with pytest.raises(UserError, match=r"classify: no temperature was learned .* temperature=0\.01"):
      one.classify(pictures[0], ["a", "b"])
  assert model.classify(pictures[0], ["a", "bb"], temperature=0.1).shape == (8, 2)


def test_what_a_model_is_can_be_read(model):
  assert repr(learned()) == (
    "<mmcontrast model: step 7; images of 16 px by vit, head pictures; texts of 5 tokens by "
    f"text_transformer, head words; temperature 0.05; {size(learned()):,} parameters>"
  )
  assert repr(tiny_inference(image="", text="")).startswith("<mmcontrast model: images of 16 px by vit; ")


def size(model):
  """How many parameters it has."""
  return sum(leaf.size for leaf in jax.tree.leaves(model.variables["params"]))
