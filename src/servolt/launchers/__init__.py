"""Launchers: how a command becomes a running server."""
