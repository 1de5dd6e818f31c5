"""Fast greedy generation and scoring of choices with a ``transformers`` model."""
