"""MoRE (arXiv:2410.16239), in its manner: electrocardiograms and pictures, each against what is said of them.

    mmcontrast train --config methods/more --workdir runs/more
    mmcontrast train --config methods/more:simulated --workdir runs/more_simulated    # after data build simulated_ecg

Two terms of CLIP, both with the text, none between series and picture; a convolutional stem and a transformer on three
leads, heads of two layers with batch norm. The temperature is a constant 0.02, as the public code's is in effect: it is
no parameter of its optimizer. Data are made by a formula (`heartbeats`), the picture is the tracing on paper: no paired
clinical data are free. Ours: small towers without pretraining, no LoRA, no DropKey, and examples of one class as
positives, since their texts are alike. With `simulated` signals are NeuroKit2's, twelve leads in seven conditions.
"""

from mmcontrast.config import arguments, base_config, sized


def get_config(arg=None):
  a = arguments(arg, simulated=False, smoke=False)
  dataset = "simulated_ecg" if a.simulated else "heartbeats"
  labels = ("condition",) if a.simulated else ("rate", "rhythm", "ending")
  c = base_config()
  c.steps, c.batch.size = 600, 64
  c.data.update(
    dataset=dataset,
    split="train",
    image_size=64,
    tokenizer="bytes",
    text_length=96,
    views=dict(image=1, text=1, series=1),
    crop=dict(scale=(0.9, 1.0)),
  )
  c.data.series.update(channels=12 if a.simulated else 3, length=800, noise=0.05)
  c.augment = {}
  c.towers = dict(
    image=dict(name="resnet18", stages=(1, 1, 1, 1), width=16, stem="patch2"),
    text=dict(name="text_transformer", width=64, depth=1, heads=2),
    series=dict(name="series_transformer", width=64, depth=2, heads=2, stem=32),
  )
  head = dict(name="mlp", dim=64, hidden=64)
  c.heads = {f"{name}_joint": dict(tower=name, **head) for name in c.towers}
  both = dict(direction="both", target="same_id", temperature=0.02)
  c.objective = dict(
    text_image=dict(query="text[0]/text_joint", key="image[0]/image_joint", **both),
    text_series=dict(query="text[0]/text_joint", key="series[0]/series_joint", **both),
  )
  c.optimizer = dict(name="adamw", learning_rate=dict(name="warmup_cosine", peak=1e-3, warmup_steps=50), clip_norm=1.0)
  c.evaluation.update(
    image="image_joint",
    text="text_joint",
    series="series_joint",
    features="series",
    data=dict(held_out=dict(dataset=dataset, split="test"), to_fit=dict(dataset=dataset, split="train")),
    sets=("held_out",),
    train_sets=("to_fit",),
    evaluators=dict(retrieval=dict(), linear_probe=dict(label=labels)),
  )
  return sized(c, "smoke" if a.smoke else None)
