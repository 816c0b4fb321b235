"""What a message says of the choices there are."""

from mmcontrast.errors import nearest


def test_a_few_choices_are_listed():
  assert nearest("simclt", ["clip", "simclr"]) == "did you mean 'simclr'? (one of: clip, simclr)"
  assert nearest("x", ["clip", "simclr"]) == "(one of: clip, simclr)"


def test_of_many_choices_the_near_ones_are_named():
  many = [f"unrelated_{number}" for number in range(60)] + ["steps", "stages"]
  assert nearest("stepz", many) == "did you mean 'steps' or 'stages'?"
  assert nearest("qqq", many).endswith("... 50 more)")
