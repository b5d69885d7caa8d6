"""Watts of the devices under a load."""

from servolt.catalogue import find_accelerator
from servolt.plan.power import power_w
from servolt.plan.steady import steady
from tests.plan.test_roofline import law


def test_a_busier_device_draws_more_and_never_more_than_its_limit() -> None:
    h100 = find_accelerator("H100 SXM")
    watts = [power_w(law(), steady(law(), input_len=1024, output_len=512, concurrency=n), h100) for n in (1, 16, 128)]
    assert 0.4 * 700 < watts[0] < watts[1] < watts[2] <= 700


def test_all_devices_count() -> None:
    one, eight = find_accelerator("H100 SXM"), find_accelerator("8x H100 SXM")
    state = steady(law(), input_len=1024, output_len=512, concurrency=8)
    assert power_w(law(), state, eight) == 8 * power_w(law(), state, one)
