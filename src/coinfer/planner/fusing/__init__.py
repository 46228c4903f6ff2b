"""Fusing in a plan: who may be fused, the fused graphs, their trials. `passes.fusing` decides."""
