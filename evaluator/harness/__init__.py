"""Suites of EleutherAI's lm-evaluation-harness, run on policies."""
