"""Experiments: run an engine or a simulation of a plan to find something out."""
