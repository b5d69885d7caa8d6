"""What a name looks like, before anyone is asked."""

import re

__all__ = ["is_hub_id"]

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}(@[\w./-]{1,128})?")


def is_hub_id(name: str) -> bool:
    """OWNER/NAME, perhaps with @REVISION.

    >>> is_hub_id("Qwen/Qwen3-8B"), is_hub_id("./model"), is_hub_id("guide"), is_hub_id("a/b/c")
    (True, False, False, False)
    """
    return bool(_ID.fullmatch(name)) and ".." not in name and not name.endswith(".gguf")
