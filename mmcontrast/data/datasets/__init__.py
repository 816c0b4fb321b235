"""Dataset builders (tfds, ArrayRecord, no TensorFlow), by name: "module:class"."""

BUILDERS = {
  "emoji_views": "mmcontrast.data.datasets.emoji_views:EmojiViews",
  "emoji_noto": "mmcontrast.data.datasets.emoji_noto:EmojiNoto",
}
