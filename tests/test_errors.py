"""Messages are one line with the place; operations' errors have a class for each errno and survive pickling."""

import errno
import pickle
from pathlib import Path

import pytest

from gmemlab import errors
from gmemlab.errors import GmemlabError, OperationError, UnsupportedError, UsageError, operation_error


def test_usage_error_names_place_and_choice() -> None:
    error = UsageError("unknown policy", file=Path("day.toml"), line=7, key="policy", value="tph", allowed="4k, thp")
    assert str(error) == "day.toml:7: policy: unknown policy (value 'tph'; allowed: 4k, thp)"
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UsageError("empty"), "empty"),
        (UsageError("empty", file="a"), "a: empty"),
        (UsageError("empty", line=3), "line 3: empty"),
        (UsageError("empty", key="size", value=0), "size: empty (value 0)"),
        (UsageError("two\nlines", value="a\nb"), "two lines (value 'a\\nb')"),
    ],
)
def test_usage_error_without_some_parts(error: UsageError, text: str) -> None:
    assert str(error) == text


def test_usage_error_shortens_long_values() -> None:
    assert len(str(UsageError("bad", value="x" * 10_000))) < 120


def test_usage_error_gets_its_place_later_but_keeps_what_it_has() -> None:
    error = UsageError("not a size", value="2Q", allowed="2M").at(file="a.toml", line=2, key="size")
    assert str(error) == "a.toml:2: size: not a size (value '2Q'; allowed: 2M)"
    assert str(error.at(file="b.toml", line=9, key="other")) == str(error)


def test_unsupported_error_names_the_feature() -> None:
    error = UnsupportedError("/proc/buddyinfo", "cannot be read:\nPermission denied")
    assert str(error) == "/proc/buddyinfo: cannot be read: Permission denied"
    assert error.exit_code == 3


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOMEM, errors.OutOfMemory),
        (errno.ENOSPC, errors.PoolExhausted),
        (errno.EAGAIN, errors.TryAgain),
        (errno.EINVAL, errors.InvalidArgument),
        (errno.EFAULT, errors.MemoryFault),
        (errno.EACCES, errors.HostAccessFault),
        (errno.EOPNOTSUPP, errors.NotSupported),
        (errno.EFBIG, errors.TooBig),
        (errno.ENOENT, errors.NotFound),
        (errno.EINTR, OperationError),
    ],
)
def test_operation_error_by_errno(number: int, kind: type[OperationError]) -> None:
    error = operation_error(number, 17, "punch [3, 20)")
    assert type(error) is kind
    assert isinstance(error, GmemlabError)
    assert isinstance(error, OSError)
    assert (error.errno, error.done, error.what) == (number, 17, "punch [3, 20)")
    assert f"({errno.errorcode[number]}); 17 pages done before" in str(error)
    assert error.exit_code == 1


def test_operation_error_says_little_when_nothing_was_done() -> None:
    assert str(operation_error(errno.ENOMEM, 0, "allocate")) == "allocate: Cannot allocate memory (ENOMEM)"
    assert str(operation_error(errno.ENOMEM, 1, "allocate")).endswith("; 1 page done before")


@pytest.mark.parametrize(
    "error",
    [
        UsageError("bad", file="f", line=1, key="k", value="v", allowed="a"),
        UnsupportedError("KVM", "absent"),
        operation_error(errno.EAGAIN, 5, "convert"),
    ],
)
def test_errors_cross_process_borders(error: GmemlabError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
