from servolt.host.calibrate import read_bytes_per_s


def test_memory_is_read_at_a_rate_that_memory_has() -> None:
    rate = read_bytes_per_s(1, array_bytes=2**22, seconds=0.01)
    assert 1e8 < rate < 1e13


def test_several_threads_read_parts_of_one_array() -> None:
    assert read_bytes_per_s(3, array_bytes=2**22, seconds=0.01) > 1e8
