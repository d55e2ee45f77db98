"""Trains SAM 2 on clips with known truth: data, roll-out, losses, loop.

Owns nothing itself; runs in the one thread of a training process. Never needed to run a model.
"""
