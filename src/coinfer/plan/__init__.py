"""Plan: what was decided before running, and why. Pure values, and their files."""

from __future__ import annotations

from coinfer.plan.choice import Alternative, Choice
from coinfer.plan.model_plan import ModelPlan
from coinfer.plan.plan import AUTO, Plan, PolicyChoice
from coinfer.plan.variant import Kind, Variant

__all__ = [
    "AUTO",
    "Alternative",
    "Choice",
    "Kind",
    "ModelPlan",
    "Plan",
    "PolicyChoice",
    "Variant",
]
