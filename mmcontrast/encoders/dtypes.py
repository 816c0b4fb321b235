"""The types of numbers that towers and heads can compute in."""

DTYPES = ("float32", "bfloat16", "float16", "float64")
