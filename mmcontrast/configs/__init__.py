"""Configs that come with the package, one experiment a file: `mmcontrast configs` lists them.

    mmcontrast train --config quickstart --workdir runs/quickstart

A config of your own builds on one of them by `from mmcontrast.configs.methods import clip`.
"""
