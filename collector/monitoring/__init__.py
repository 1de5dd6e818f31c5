"""Health, readiness and metrics of the control application."""
