"""Pure functions on model graphs: cost, cuts and exact transforms.

Knows ONNX graphs; imports no library that runs them, no clock and no threads. Import what you need
from its modules: importing the package alone loads nothing heavy.
"""
