"""A laboratory for huge pages under confidential virtual machines: model, live driver, comparisons."""

from typing import Final

__version__: Final = "0.1.0"
