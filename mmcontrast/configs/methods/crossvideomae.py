"""CrossVideoMAE (Ahamed et al., arXiv:2502.07811), in its manner: masked videos and frames, painted and compared.

    mmcontrast data build furniture
    mmcontrast train --config methods/crossvideomae --workdir runs/crossvideomae

Three quarters of a clip's tubelets and of a frame's patches are left out and painted by light decoders; with so few
tubelets as here the paper's nine tenths leave one of sixteen. Two crops of a clip are contrasted, a clip with a frame
of it by their means, and the frame's patches with the clip's tubelets. No code is public: the weights, which are equal,
and the temperature are ours, and so are towers from nothing, where the paper starts from an MAE's; the frame is the
first of the turntable.
"""

from mmcontrast.config import sized
from mmcontrast.configs import furniture

CLIP, OTHER, FRAME = "video_masked[0]", "video_masked[1]", "image_masked[0]"
SHARE = 0.75


def get_config(arg=None):
  c = furniture.pair()
  c.data.update(dataset="furniture", source=dict(image=("render",)), image_size=32, facts=("masked", "pixels"))
  c.data.views = dict(video=2, image=1)
  c.data.video.masked = dict(views=2, tubelet=(2, 8, 8), share=SHARE)
  c.data.masked = dict(views=1, patch=8, share=(SHARE, SHARE), probability=1.0)
  c.towers = dict(
    video=dict(name="tubelet_vit", width=96, depth=3, heads=3, tubelet=(2, 8), leave_out=SHARE),
    image=dict(name="vit", width=96, depth=3, heads=3, patch=8, positions="sincos2d", pool="gap", leave_out=SHARE),
  )
  c.heads = dict(video_ssl=dict(tower="video", name="mlp", dim=96))
  for name, numbers in (("video", 2 * 8 * 8 * 3), ("image", 8 * 8 * 3)):
    c.towers[f"{name}_decoder"] = dict(name="patch_decoder", reads=(name,), width=64, depth=1, heads=2)
    c.heads[f"{name}_pixels"] = dict(tower=f"{name}_decoder", name="token_linear", dim=numbers, bias=True)
    c.heads[f"{name}_joint"] = dict(tower=name, name="linear", dim=96)
    c.heads[f"{name}_tokens"] = dict(tower=name, name="token_linear", dim=96)
  both = dict(direction="both", target="same_id", temperature=0.1)
  c.objective = dict(
    videos=dict(query=f"{CLIP}/video_ssl", key=f"{OTHER}/video_ssl", **both),
    video_frame=dict(query=f"{CLIP}/video_joint", key=f"{FRAME}/image_joint", **both),
    patches_tubelets=dict(query=f"{FRAME}/image_tokens", key=f"{CLIP}/video_tokens", score="token_max", **both),
    video_pixels=dict(module="masked_pixels", embeddings=f"video_decoder({CLIP})/video_pixels"),
    image_pixels=dict(module="masked_pixels", embeddings=f"image_decoder({FRAME})/image_pixels"),
  )
  c.evaluation.update(image="image_joint", text="")
  c.evaluation.evaluators = dict(retrieval=dict(), linear_probe=dict(label="group"))
  return sized(c, arg)
