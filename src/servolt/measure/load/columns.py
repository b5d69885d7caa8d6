"""What a worker hands over, column by column."""

__all__ = ["EVENT_COLUMNS", "REQUEST_COLUMNS", "UNKNOWN"]

UNKNOWN = -(2**63)  # on the pipe only; in the tables it is masked, in the file it is null
REQUEST_COLUMNS = (
    "i", "s_ns", "d_ns", "e_ns", "n_in", "n_out", "cached", "prefill_ns", "decode_ns",
    "http_status", "running_count", "outcome", "finish_reason",
)  # fmt: skip
EVENT_COLUMNS = ("i", "t_ns", "tokens", "lag_ns")
