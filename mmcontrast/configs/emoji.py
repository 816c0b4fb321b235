"""What every method on emoji starts from: the quickstart's data, towers, schedule and evaluation, without its terms."""

from mmcontrast.configs import quickstart


def pair(image=1, text=1):
  """Both towers, each with one linear head into the joint space, and so many views of each."""
  c = _start()
  c.data.views = dict(image=image, text=text)
  del c.heads.image_ssl, c.heads.text_ssl
  c.objective = dict()
  return c


def images(views=2):
  """Only the image tower, with a head; there is no joint space to retrieve in, so probes show what it learns."""
  c = _start()
  c.data.views = dict(image=views)
  del c.towers.text, c.heads.image_joint, c.heads.text_ssl, c.heads.text_joint
  c.objective = dict()
  c.evaluation.update(image="", text="")
  del c.evaluation.evaluators.retrieval, c.evaluation.evaluators.zero_shot
  return c


def tones(views=2):
  """The image tower, without a head, and drawings in skin tones; probes show what it knows of tone and of the rest."""
  c = images(views)
  c.data.update(dataset="emoji_tones", split="train")
  c.augment = dict(image=dict(flip=0.5, brightness=0.2, jitter_probability=0.8))
  del c.heads.image_ssl
  label = ("tone", "subgroup")
  c.evaluation.update(
    data=dict(tones=dict(split="test"), tones_to_fit=dict(split="train")),
    sets=("tones",),
    train_sets=("tones_to_fit",),
    optional_sets=(),
    evaluators=dict(knn=dict(label=label), linear_probe=dict(label="tone")),
  )
  return c


def tokens(head="token_linear"):
  """Both towers, each with one head that gives tokens; zero-shot means of prompts need single vectors."""
  c = pair()
  c.heads = {f"{tower}_tokens": dict(tower=tower, name=head, dim=128) for tower in ("image", "text")}
  c.evaluation.update(image="image_tokens", text="text_tokens")
  del c.evaluation.evaluators.zero_shot
  return c


def texts(views=2):
  """Only the text tower, with a head; there is nothing to evaluate."""
  c = _start()
  c.data.views = dict(text=views)
  del c.towers.image, c.heads.image_ssl, c.heads.image_joint, c.heads.text_joint
  c.objective = dict()
  c.evaluation.update(image="", text="", features="", sets=())
  c.evaluation.evaluators = dict()
  return c


def stage(c, name, steps, **changes):
  """A stage (mmcontrast/config/stages.py) of the views, towers, heads, terms and evaluation of `c`."""
  sections = dict(towers=c.towers, heads=c.heads, objective=c.objective, evaluation=c.evaluation)
  return dict(name=name, steps=steps, data=dict(views=c.data.views), **sections, **changes)


def _start():
  """The quickstart, without its rows of pixels and untrained towers, which are the same for every method."""
  c = quickstart.get_config()
  del c.evaluation.evaluators.knn.baselines, c.evaluation.evaluators.linear_probe.baselines
  return c
