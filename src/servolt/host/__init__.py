"""Facts about this machine. What can't be known is None."""

from servolt.host.cpu import ProcessTree, machine_busy_s, own_cpu_s
from servolt.host.facts import cpu_accelerator, host_facts

__all__ = ["ProcessTree", "cpu_accelerator", "host_facts", "machine_busy_s", "own_cpu_s"]
