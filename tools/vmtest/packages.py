"""Debian packages of any release, through an apt of vmtest's own: the system's apt configuration is only read.

apt checks what it loads against the signatures of the Debian archive. Where the mirror is, and how it is reached, comes
from the configuration of the machine's apt.
"""

import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gmemlab.errors import GmemlabError, UnsupportedError
from tools.vmtest.host import cache, locked, need, output, say, timed

RELEASES: Final = ("trixie", "bookworm")

_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_OS_RELEASE: Final = Path("/etc/os-release")
_FRESH_SECONDS: Final = 24 * 3600
_INDEX_FORMAT: Final = "$(CREATED_BY)|$(COMPONENT)|$(REPO_URI)|$(RELEASE)|$(ORIGIN)|$(LABEL)"

_CONFIGURATION: Final = """\
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{root}/sources";
Dir::State "{root}/state";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Get::AllowUnauthenticated "false";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
"""


@dataclass(frozen=True)
class Package:
    """A binary package: its name, its version, and the names of packages that it depends on."""

    name: str
    version: str
    depends: tuple[str, ...]


class Archive:
    """The packages of a Debian release and its backports.

    Args:
        release: the codename.

    Raises:
        UnsupportedError: apt is missing, or knows no Debian mirror.
        GmemlabError: the mirror cannot be read, and was not before.
    """

    def __init__(self, release: str) -> None:
        need("apt-get", "apt-cache", "apt-config", "dpkg-deb")
        if not _KEYRING.exists():
            raise UnsupportedError(str(_KEYRING), "not found; on Debian: apt-get install debian-archive-keyring")
        self.release = release
        self._root = cache() / f"apt-{release}"
        self._env = {"APT_CONFIG": str(self._root / "apt.conf")}
        with self._alone():
            self._configure()
            self._refresh()

    def names(self, prefix: str) -> list[str]:
        """Return the names of all packages that begin with ``prefix``."""
        return self._apt("apt-cache", "pkgnames", prefix).split()

    def package(self, name: str) -> Package:
        """Return what apt would install under a name.

        Raises:
            GmemlabError: there is no such package.
        """
        return parse_stanza(self._apt("apt-cache", "--no-all-versions", "show", name))

    def download(self, names: Sequence[str], folder: Path) -> list[Path]:
        """Fetch packages, without what they depend on.

        Args:
            names: of the packages.
            folder: where the files go.

        Raises:
            GmemlabError: the mirror does not have them, or a checksum is wrong.
        """
        with timed(f"{self.release}: loading {', '.join(names)}"):
            output(["apt-get", "-q", "download", *names], env=self._env, cwd=folder)
        return sorted(folder.glob("*.deb"))

    def closure(self, *names: str) -> list[str]:
        """Return the file names of packages with everything they depend on."""
        lines = self._apt("apt-get", "-qq", "--print-uris", "install", *names).splitlines()
        return sorted(line.split()[1] for line in lines if line.startswith("'"))

    def download_closure(self, names: Sequence[str], folder: Path) -> list[Path]:
        """Fetch packages with everything they depend on.

        Args:
            names: of the packages.
            folder: where the files go.

        Raises:
            GmemlabError: the mirror does not have them, or a checksum is wrong.
        """
        with timed(f"{self.release}: loading {', '.join(names)} and what they depend on"), self._alone():
            self._apt("apt-get", "-qq", "-y", "-o", f"Dir::Cache::archives={folder}", "--download-only", "install", *names)
        return sorted(folder.glob("*.deb"))

    def _apt(self, *arguments: str) -> str:
        return output(arguments, env=self._env)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with locked(self._root.name):
            yield

    def _configure(self) -> None:
        for name in ("sources", "state/lists/partial", "cache/archives/partial"):
            (self._root / name).mkdir(parents=True, exist_ok=True)
        (self._root / "status").touch()
        # How the machine reaches its mirror (proxies, tolerance of old signatures), without the hooks of its other packages.
        acquire = [line for line in output(["apt-config", "dump"]).splitlines() if line.startswith("Acquire::")]
        own = _CONFIGURATION.format(root=self._root)
        (self._root / "apt.conf").write_text("\n".join(acquire) + "\n" + own, encoding="utf-8")
        sources = self._root / "sources" / "debian.sources"
        text = source(find_mirror(), self.release)
        if not sources.exists() or sources.read_text(encoding="utf-8") != text:
            shutil.rmtree(self._root / "state")
            (self._root / "state/lists/partial").mkdir(parents=True)
            self._stamp.unlink(missing_ok=True)
            sources.write_text(text, encoding="utf-8")

    @property
    def _stamp(self) -> Path:
        return self._root / "refreshed"

    def _refresh(self) -> None:
        known = self._stamp.exists()
        if known and time.time() - self._stamp.stat().st_mtime < _FRESH_SECONDS:
            return
        try:
            with timed(f"{self.release}: loading the lists of packages"):
                self._apt("apt-get", "-qq", "-o", "APT::Update::Error-Mode=any", "update")
        except GmemlabError as error:
            if not known:
                raise
            say(f"{error}; the lists of last time are used")
        else:
            self._stamp.touch()


def find_mirror() -> str:
    """Return the URI of the Debian mirror that apt uses on this machine.

    Raises:
        UnsupportedError: apt knows none.
    """
    lines = _OS_RELEASE.read_text(encoding="utf-8").splitlines() if _OS_RELEASE.exists() else []
    system = {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}
    codename = system.get("VERSION_CODENAME") if system.get("ID") == "debian" else None
    return choose_mirror(output(["apt-get", "indextargets", "--format", _INDEX_FORMAT]), codename)


def choose_mirror(targets: str, codename: str | None) -> str:
    """Return the URI of a Debian mirror among what apt loads lists from.

    Args:
        targets: lines of kind, component, URI, release, origin and label; the last two are there once lists were loaded.
        codename: of the Debian release that runs here, or None.

    Raises:
        UnsupportedError: there is no Debian mirror.
    """
    rows = [line.split("|") for line in targets.splitlines()]
    main = [row[2:] for row in rows if row[:2] == ["Packages", "main"]]
    by_origin = [uri for uri, _, *origin in main if origin == ["Debian", "Debian"]]
    by_release = [uri for uri, release, *_ in main if release == codename]
    if not by_origin + by_release:
        raise UnsupportedError("apt", "has no Debian mirror in its sources")
    return (by_origin + by_release)[0]


def source(mirror: str, release: str) -> str:
    """Return the entry of apt's sources for a release and its backports.

    Args:
        mirror: its URI.
        release: the codename.
    """
    suites = f"{release} {release}-backports"
    return f"Types: deb\nURIs: {mirror}\nSuites: {suites}\nComponents: main\nSigned-By: {_KEYRING}\n"


def parse_stanza(text: str) -> Package:
    """Read what ``apt-cache show`` says of a package."""
    fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", text, re.MULTILINE))
    depends = tuple(item.split()[0] for item in fields.get("Depends", "").split(",") if item.strip())
    return Package(fields["Package"], fields["Version"], depends)


def unpack(packages: Sequence[Path], folder: Path) -> None:
    """Unpack package files into a directory.

    Args:
        packages: the files.
        folder: where their contents go.

    Raises:
        GmemlabError: one is damaged.
    """
    for package in packages:
        output(["dpkg-deb", "--extract", package, folder])
