"""Turns sealed batches of feedback into candidate checkpoints; open ``trainer/update.py`` first."""
