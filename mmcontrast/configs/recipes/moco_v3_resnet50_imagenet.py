"""MoCo v3 with a ResNet-50 on ImageNet (Chen et al., arXiv:2104.02057), 100 epochs, for 64 chips, v5e:8x8.

    mmcontrast train --config recipes/moco_v3_resnet50_imagenet --dry_run --topology v5e:8x8
    mmcontrast train --config recipes/moco_v3_resnet50_imagenet --workdir gs://bucket/moco_v3 \
        --data_dir gs://bucket/tfds

The authors' release (github.com/facebookresearch/moco-v3 at c349e6e). CONFIG.md, "ResNet-50, 100-epoch pre-training":
momentum of the encoder from 0.99 to 1 by a cosine, crops of 0.2 to 1 of the image. Defaults of main_moco.py: batch
4,096, LARS with momentum 0.9, rate 0.6 x 4,096 / 256 after 10 epochs of warm-up and a cosine, decay 1e-6, temperature
1, BYOL's two augmentations, the last norm of each block at zero at the start. moco/builder.py: the loss times twice the
temperature, projector and predictor of two layers, 4,096 hidden, 256 out, the last norms without scale and bias,
momentum encoder updated before it makes keys. Ours: bfloat16 where the release has half precision.
"""

from mmcontrast.config import base_config, sized

EPOCHS, IMAGES, BATCH = 100, 1_281_167, 4096


def get_config(arg=None):
  c = base_config()
  steps_per_epoch = IMAGES // BATCH
  c.steps, c.batch.size = EPOCHS * steps_per_epoch, BATCH
  c.data.update(dataset="imagenet2012", image_size=224, views=dict(image=2, text=0), crop=dict(scale=(0.2, 1.0)))
  c.augment = dict(image="byol")
  c.towers.image = dict(name="resnet50", zero_init_residual=True, dtype="bfloat16")
  mlp = dict(name="mlp", dim=256, hidden=4096, batch_norm=True, batch_norm_last=True)
  c.heads.image_ssl = dict(tower="image", **mlp)
  c.heads.predictor = dict(of="image_ssl", **mlp)
  c.momentum = dict(decay=dict(name="cosine", init=0.99, end=1.0), update="before_keys")
  term = dict(temperature=1.0, weight=2.0)
  c.objective = dict(
    first=dict(term, query="image[0]/predictor", key="image[1]/image_ssl@momentum"),
    second=dict(term, query="image[1]/predictor", key="image[0]/image_ssl@momentum"),
  )
  c.optimizer = dict(
    name="lars",
    momentum=0.9,
    weight_decay=1e-6,
    learning_rate=dict(name="warmup_cosine", peak=0.6 * BATCH / 256, warmup_steps=10 * steps_per_epoch),
  )
  c.checkpoint.update(every_steps=1000, keep_last=2)
  return sized(c, arg)
