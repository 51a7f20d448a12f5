"""Wengert: a compiler for differentiable programs."""
