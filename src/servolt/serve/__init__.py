"""The gateway: real engines behind the APIs that clients already speak."""
