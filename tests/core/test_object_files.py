"""Parts on disk: what is compiled is found again, is what was written, and runs."""

import ctypes
from pathlib import Path

import numba
import pytest
from numba.core import types
from numba.core.typing.templates import signature

from gmemlab.core import object_files, parts
from gmemlab.core.jit import jit
from gmemlab.core.state import compiled_type

compiled_only = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="about compiled code on disk")


@jit
def doubled(number: int) -> int:
    return 2 * number


def answer(number: int) -> int:
    return doubled(number) + 1


def call(address: int, number: int) -> int:
    """Call by Numba's convention: where the result goes, where an exception goes, the arguments; 0 says all is well."""
    result, exception = ctypes.c_int64(), ctypes.c_void_p()
    convention = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    assert convention(address)(ctypes.addressof(result), ctypes.addressof(exception), number) == 0
    return result.value


@compiled_only
def test_what_was_kept_is_found_and_runs(tmp_path: Path) -> None:
    made = object_files.compile_alone(answer, signature(types.int64, types.int64))
    object_files.keep(tmp_path / "new" / "answer.o", made)
    found = object_files.kept(tmp_path / "new" / "answer.o")
    assert found == made
    assert [call(address, 20) for address in object_files.load([found, made])] == [41, 41]


def test_what_is_not_there_is_none_and_what_cannot_be_kept_is_not(tmp_path: Path) -> None:
    made = object_files.ObjectFile("symbol", b"one\ntwo\n")
    (tmp_path / "file").write_bytes(b"")
    object_files.keep(tmp_path / "file" / "answer.o", made)
    assert object_files.kept(tmp_path / "file" / "answer.o") is None
    assert object_files.kept(tmp_path / "answer.o") is None
    object_files.keep(tmp_path / "answer.o", made)
    assert object_files.kept(tmp_path / "answer.o") == made


@compiled_only
def test_part_is_compiled_once_and_again_when_its_file_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "CACHE", tmp_path)
    compiled: list[str] = []
    original = object_files.compile_alone

    def counted(function: object, kind: object) -> object_files.ObjectFile:
        compiled.append(str(function))
        return original(function, kind)  # type: ignore[arg-type]  # it is passed on as it came

    monkeypatch.setattr(parts, "compile_alone", counted)
    first = parts.compile_part("mempolicy.nodes_of_policy", compiled_type())
    assert parts.compile_part("mempolicy.nodes_of_policy", compiled_type()) == first
    assert len(compiled) == 1
    parts.object_path("mempolicy.nodes_of_policy", compiled_type()).unlink()
    parts.compile_part("mempolicy.nodes_of_policy", compiled_type())
    assert len(compiled) == 2
