"""``tacit doctor``: what a configuration lacks before anything is started.

In: settings. Out: findings, each with how to mend it. A file an area; ``examine.py`` runs them all.
Nothing is made or changed, and nothing is waited for longer than its time limit.
"""
