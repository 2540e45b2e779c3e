"""Files that are either complete or as they were before."""

import os
import tempfile
from pathlib import Path


def write_whole(target: Path, content: str | bytes) -> None:
    """Write a file beside the target, then put it in the target's place. OSError leaves the target as it was."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
