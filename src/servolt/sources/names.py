"""What a name looks like, before anyone is asked."""

import re

from servolt.errors import ModelNotFoundError

__all__ = ["NotOnHubError", "is_hub_id"]


class NotOnHubError(ModelNotFoundError):
    """The Hub was asked and shows no such model: a slip, more likely than not."""


_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}(@[\w./-]{1,128})?")


def is_hub_id(name: str) -> bool:
    """OWNER/NAME, perhaps with @REVISION.

    >>> is_hub_id("Qwen/Qwen3-8B"), is_hub_id("./model"), is_hub_id("guide"), is_hub_id("a/b/c")
    (True, False, False, False)
    """
    return bool(_ID.fullmatch(name)) and ".." not in name and not name.endswith(".gguf")
