"""MCL (Zhang et al., arXiv:2402.11816): CLIP in stages, whose batches are of what earlier stages take for the same.

    mmcontrast train --config methods/mcl --workdir runs/mcl

Stage `first` is clip.py. Before each later stage k-means makes 5 clusters of the images of every earlier stage, by its
frozen tower; a group is the examples that are together in all of them, and every batch of the stage is of one group.
A stage starts from the one before it, the text tower still. The paper has 10 clusters for 12 million examples, starts
from CLIP's ViT-L/14, and puts the features of all stages side by side, which is not done here: each stage's folder is a
model of its own, and the last one is evaluated. The rest is clip.py, in three parts.
"""

from mmcontrast.config import sized
from mmcontrast.configs.methods import clip

STAGES = ("first", "second", "third")
STEPS = (1000, 400, 400)


def get_config(arg=None):
  c = clip.get_config()
  stages = [dict(name=STAGES[0], steps=STEPS[0])]
  for number, (name, steps) in enumerate(zip(STAGES[1:], STEPS[1:]), start=1):
    before = STAGES[:number]
    towers = {f"image_{stage}": dict(c.towers.image, modality="image") for stage in before}
    heads = {f"features_{stage}": dict(tower=f"image_{stage}", name="identity") for stage in before}
    parts = ("towers/image", "towers/text", "heads/image_joint", "heads/text_joint", "terms")
    init = {part: f"{before[-1]}:{part}" for part in parts}
    init |= {f"towers/image_{stage}": f"{stage}:towers/image" for stage in before}
    stages.append(
      dict(
        name=name,
        steps=steps,
        towers=dict(c.towers, **towers),
        heads=dict(c.heads, **heads),
        init=init,
        optimizer=dict(frozen=("towers/text/.*", *(f"towers/image_{stage}/.*" for stage in before))),
        epoch_hooks=dict(
          groups=dict(
            name="cluster_batches", clusters=5, embeddings=tuple(f"image[0]/features_{stage}" for stage in before)
          )
        ),
      )
    )
  c.stages = tuple(stages)
  return sized(c, arg)
