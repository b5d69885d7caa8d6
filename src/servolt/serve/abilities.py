"""What a model can do beside completing text, as far as its own header says."""

from servolt.model import Model

__all__ = ["abilities"]


def abilities(model: Model) -> list[str]:
    """Ollama's words. Tools and thinking are what the chat template has a place for."""
    if "embedding" in model.capabilities:
        return ["embedding"]
    template = model.chat_template or ""
    found = list(model.capabilities)
    if "tools" in template:
        found.append("tools")
    if "enable_thinking" in template or "<think>" in template:
        found.append("thinking")
    return found
