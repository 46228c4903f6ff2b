"""Fuse models of the same architecture into one graph (NetFuse, arXiv 2009.13062). Pure.

`match` says which operators correspond, `choice` how each is merged, `apply` does it.
"""
