"""Compressing: fewer operations by low rank. Choose apart from apply; runs nothing."""
