"""Dataset builders (tfds, ArrayRecord, no TensorFlow), by name: "module:class"."""

BUILDERS = {
  "emoji_views": "mmcontrast.data.datasets.emoji_views:EmojiViews",
  "emoji_tones": "mmcontrast.data.datasets.emoji_tones:EmojiTones",
  "emoji_noto": "mmcontrast.data.datasets.emoji_noto:EmojiNoto",
  "emoji_scenes": "mmcontrast.data.datasets.emoji_scenes:EmojiScenes",
  "emoji_spoken": "mmcontrast.data.datasets.emoji_spoken:EmojiSpoken",
  "emoji_spoken_noto": "mmcontrast.data.datasets.emoji_spoken:EmojiSpokenNoto",
  "tux_stamps": "mmcontrast.data.datasets.tux_stamps:TuxStamps",
  "furniture": "mmcontrast.data.datasets.furniture:Furniture",
  "simulated_ecg": "mmcontrast.data.datasets.simulated_ecg:SimulatedEcg",
  "wordnet": "mmcontrast.data.datasets.wordnet:Wordnet",
}
