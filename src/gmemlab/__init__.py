"""gmemlab: how should confidential VMs' memory be backed by huge pages? A laboratory that answers with numbers.

>>> import gmemlab
>>> host = gmemlab.Host("1T")
>>> vm = host.guest_memfd("64G", policy="thp")
>>> vm.allocate()
>>> vm.punch_hole("2M", "4K")
>>> vm.convert("1G", "64M", to="shared")
>>> vm.usage().charged < vm.size
True
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gmemlab.model.daemons import DaemonSettings
    from gmemlab.model.host import Host
    from gmemlab.policy import Policy
    from gmemlab.presets import PRESETS

__version__ = "0.1.0"
__all__ = ["PRESETS", "DaemonSettings", "Host", "Policy", "__version__"]

_HOMES = {
    "DaemonSettings": "gmemlab.model.daemons",
    "Host": "gmemlab.model.host",
    "Policy": "gmemlab.policy",
    "PRESETS": "gmemlab.presets",
}


def __getattr__(name: str) -> Any:
    """Import the public classes when they are first asked for: the compiled core takes a moment to load."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
