"""Imports: feedback that is elsewhere already, in a file or in MLflow, sent like any other.

Everything goes through the HTTP API with the SDK, so it is screened like what products send. Ids
are made from the content, so importing twice adds nothing.
"""
