"""Scheduling policies by name: one file per published rule, imported on first use.

Third parties add theirs through the entry-point group `coinfer.policies`.
"""

from __future__ import annotations

from coinfer.policies.registry import make_policy, policy_names

__all__ = ["make_policy", "policy_names"]
