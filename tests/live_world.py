"""What the tests of the live drivers share: refusals by their errno, and the numbers that they ask with."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

LARGEST: Final = (1 << 63) - 1  # of a file offset


@contextmanager
def refusal(number: int, done: int | None = None) -> Iterator[None]:
    """Expect an OSError with this errno, and this progress where it is given."""
    with pytest.raises(OSError) as caught:  # noqa: PT011  # the errno is what is looked at
        yield
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[number]
    if done is not None:
        assert getattr(caught.value, "done", None) == done
