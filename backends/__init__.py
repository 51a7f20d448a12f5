"""Part of wengert."""
