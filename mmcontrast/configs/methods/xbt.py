"""XBT-style (Jang and Lim, arXiv:2405.14715): a new model whose embeddings can be searched in an old one's index.

    mmcontrast train --config methods/xbt --workdir runs/xbt

The paper's losses could not be read: these are ours. Stages `old` and `new` train two models of different sizes; `text`
trains a projection of the new text embedding into the old space, by texts alone, against the old text tower; `tune`
applies the same projection to images, and tunes it, with LoRA on the new heads, by pairs of the new model with the
frozen old one, both ways. Evaluated as images of the new model among texts of the old; the evaluator `cross_version`
adds all pairings of the two, and how much of what a new index would bring the new queries bring in the old one.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji

NEW = ("towers/image", "towers/text", "heads/image_joint", "heads/text_joint")
OLD = ("towers/old_image", "towers/old_text", "heads/old_image_joint", "heads/old_text_joint")
LEARNED = dict(init=0.07, learned=True, min=0.01)


def pair(image, text):
  return dict(image_text=dict(query=f"image[0]/{image}", key=f"text[0]/{text}", direction="both", temperature=LEARNED))


def get_config(arg=None):
  c = emoji.pair()
  towers = dict(
    old_image=dict(c.towers.image, modality="image", width=16), old_text=dict(c.towers.text, modality="text")
  )
  heads = {f"old_{name}": dict(head, tower=f"old_{head.tower}") for name, head in c.heads.items()}
  projections = dict(
    text_old=dict(of="text_joint", name="mlp", dim=128),
    image_old=dict(of="image_joint", name="mlp", dim=128, shared=dict(fc1="text_old", fc2="text_old")),
  )
  old = dict(towers=towers, heads=heads, objective=pair("old_image_joint", "old_text_joint"))
  new = dict(towers=dict(c.towers), heads=dict(c.heads), objective=pair("image_joint", "text_joint"))
  c.towers, c.heads = dict(new["towers"], **towers), dict(new["heads"], **heads, **projections)
  evaluation = dict(c.evaluation)
  c.stages = (
    dict(old, name="old", steps=500, evaluation=dict(evaluation, **_of("old_", towers="old_image"))),
    dict(new, name="new", steps=700, evaluation=evaluation),
    dict(
      name="text",
      steps=200,
      objective=dict(old_space=dict(query="text[0]/text_old", key="text[0]/old_text_joint", temperature=LEARNED)),
      init={part: f"old:{part}" for part in OLD} | {part: f"new:{part}" for part in NEW},
      optimizer=dict(frozen=("towers/.*", "heads/.*_joint/.*")),
    ),
    dict(
      name="tune",
      steps=400,
      objective=dict(
        new_to_old=dict(
          query="image[0]/image_old", key="text[0]/old_text_joint", direction="both", temperature=LEARNED
        ),
        old_to_new=dict(
          query="image[0]/old_image_joint", key="text[0]/text_old", direction="both", temperature="new_to_old"
        ),
      ),
      init={part: f"text:{part}" for part in (*OLD, *NEW, "heads/text_old")},
      optimizer=dict(frozen=("towers/.*", "heads/old_.*")),
      lora=dict(targets="heads/(image|text)_joint/fc1/kernel", rank=8, alpha=16.0),
    ),
  )
  c.evaluation.update(image="image_old", text="old_text_joint")
  c.evaluation.evaluators = dict(
    c.evaluation.evaluators,
    cross_version=dict(
      old=dict(image="old_image_joint", text="old_text_joint"),
      new=dict(image="image_joint", text="text_joint"),
      into_old=dict(image="image_old", text="text_old"),
    ),
  )
  return sized(c, arg)


def _of(prefix, towers):
  return dict(image=f"{prefix}image_joint", text=f"{prefix}text_joint", features=towers)
