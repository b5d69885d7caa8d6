"""servolt: plan, serve, measure and compare deployments of large language models.

As a library, `servolt.library` has the verbs as functions.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
