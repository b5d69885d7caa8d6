"""Engines: each adapter says what is to be run; each runner is that process, and nothing imports it."""
