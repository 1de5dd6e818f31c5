"""The review pages: overview, candidate, feedback, releases, audit, login. No script in any."""

from gatekeeper.pages.router import Review, create_pages

__all__ = ["Review", "create_pages"]
