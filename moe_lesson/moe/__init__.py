"""Mixtures of experts: what a router decides, how experts compute, what keeps them balanced, and recipes of layers."""
