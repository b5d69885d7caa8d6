"""The load client: requests from processes of its own, each arrival stamped."""
