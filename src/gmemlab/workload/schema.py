"""What a scenario file may say: one frozen model per TOML table.

Sizes are written ``64M`` and held in bytes, durations are written ``24h`` and held in nanoseconds, shares are numbers
from 0 to 1. W rows are public figures and have defaults; K rows are rules of the kernel. Keys that rest on a P row have
no public figure and no default, so that a scenario that uses them says what it assumes; only how W4's buckets and W2's
first hour are filled in has one.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from gmemlab.errors import UsageError
from gmemlab.presets import find, for_guest
from gmemlab.units import (
    DURATION_FORMS,
    GIB,
    HOUR,
    KIB,
    MIB,
    MILLISECOND,
    MINUTE,
    SECOND,
    SIZE_FORMS,
    parse_duration,
    parse_size,
)

SMALLEST_GUEST = 128 * MIB
LARGEST_GUEST = 16 << 40


def problem(message: str, allowed: str) -> PydanticCustomError:
    """Return the error of a value that is refused, with what is allowed; the loader makes a UsageError of it."""
    return PydanticCustomError("scenario", "{message}", {"message": message, "allowed": allowed})


def _parser(parse: Callable[[str], int], forms: str) -> BeforeValidator:
    """Wrap a reader of human units, whose UsageError becomes an error of the value that is being validated."""

    def read(value: object) -> int:
        """The value as a number of the base unit."""
        if not isinstance(value, str):
            raise problem("not a string with a unit", forms)
        try:
            return parse(value)
        except UsageError as error:
            raise problem(error.message, error.allowed or forms) from error

    return BeforeValidator(read)


def _within(low: int, high: int, allowed: str, step: int = 1) -> AfterValidator:
    """Accept low <= value <= high in multiples of step."""

    def check(value: int) -> int:
        """The value, if it is allowed."""
        if not low <= value <= high or value % step:
            raise problem("out of range", allowed)
        return value

    return AfterValidator(check)


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise problem("not a power of two", "a power of two")
    return value


def _for_people(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise problem("not a line of text", "one line without control characters")
    return value


def _policy(value: str) -> str:
    try:
        for_guest(find(value))
    except UsageError as error:
        raise problem(error.message, str(error.allowed)) from error
    return value


Size = Annotated[int, _parser(parse_size, SIZE_FORMS)]
Duration = Annotated[int, _parser(parse_duration, DURATION_FORMS)]
Positive = Annotated[Duration, _within(1, 1 << 62, "a duration above 0: 90s, 24h")]
GuestSize = Annotated[Size, _within(SMALLEST_GUEST, LARGEST_GUEST, "multiples of 2M from 128M to 16T", 2 * MIB)]
Sleep = Annotated[Duration, _within(MILLISECOND, 1 << 52, "whole milliseconds from 1ms on", MILLISECOND)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
PositiveShare = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Chunk = Annotated[Size, _within(4 * KIB, 2 * MIB, "a power of two from 4K to 2M"), AfterValidator(_power_of_two)]
RunPages = Annotated[int, Field(ge=1, le=512), AfterValidator(_power_of_two)]
Title = Annotated[str, AfterValidator(_for_people)]
PolicyName = Annotated[str, AfterValidator(_policy)]
LifetimeColumn = Literal["v1-public", "v2-public", "azure-2019"]


class Table(BaseModel):
    """A TOML table: unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Guests(Table):
    """Which guests there are: how large, how many, how long they live (W1 to W4; P3, P4).

    Attributes:
        hardware: what it has, for the states of its pages; ``generic``: confidential, and nothing is counted.
        machine: memory layout (K10): ``q35`` has the legacy hole and the PCI hole, ``flat`` has none.
        sizes: column of W4 (``fixed``: the list in `fixed`; ``share``: the list in `shares`).
        inside: where in a bucket of W4 a size lies: at its powers of two, or log-uniform in whole GiB (P4).
        largest: where the open bucket of W4 (above 64 GiB) ends, bytes (P4).
        fixed: guest sizes in bytes, drawn with equal probability, or used in turn with `count`.
        shares: guest sizes as shares of what `load` asks for, drawn with equal probability.
        count: this many guests, all created at the start, no arrivals.
        load: share of the host's free bytes that live guests occupy on average (P3).
        load_cap: share of the host's free bytes beyond which a new guest is turned away (P3).
        lifetimes: column of W2, or ``forever``.
        shortest: the shortest lifetime, ns; inside W2's first hour lifetimes are log-uniform above it (P4).
        tail_mean: mean time, ns, that a guest lives beyond the last point of W2's column (exponential; P4).
        longest: lifetimes are conditioned on being at most this, ns (P4).
        fill_time: the guests that are there at the start boot evenly over this time, ns.
        nodes: where a guest's memory comes from on a host of several NUMA nodes, guest k being at home on node k modulo their
            number: its home first (``local``), its home alone (``bind``), or all in turn (``interleave``).
    """

    hardware: Literal["generic", "plain", "sw-protected", "pkvm", "snp", "tdx"] = "generic"
    machine: Literal["q35", "flat"] = "q35"
    sizes: Literal["v1-public", "v2-public", "azure-2019", "fixed", "share"]
    inside: Literal["points", "log-uniform"] = "points"
    largest: GuestSize = 128 * GIB
    fixed: Annotated[tuple[GuestSize, ...], Field(strict=False)] = ()
    shares: Annotated[tuple[PositiveShare, ...], Field(strict=False)] = ()
    count: Annotated[int, Field(ge=1, le=100_000)] | None = None
    load: PositiveShare | None = None
    load_cap: PositiveShare | None = None
    lifetimes: Literal["v1-public", "v2-public", "azure-2019", "forever"]
    shortest: Positive = 5 * MINUTE
    tail_mean: Positive | None = None
    longest: Positive | None = None
    fill_time: Duration = 0
    nodes: Literal["local", "bind", "interleave"] = "local"
    _file: str | None = PrivateAttr(None)
    _line: int | None = PrivateAttr(None)

    @property
    def file(self) -> str | None:
        """The file that the table was read from."""
        return self._file

    @property
    def line(self) -> int | None:
        """The line that it starts at, from 1."""
        return self._line

    def read_from(self, file: str, line: int) -> None:
        """Remember where the table stands, for errors that show only on a host."""
        self._file, self._line = file, line

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.count is None) == (self.load is None):
            raise problem("either count or load must be given", "one of: count, load")
        if self.load is not None and (self.load_cap is None or self.load_cap < self.load):
            raise problem("load needs load_cap", f"load_cap from {self.load:g} to 1")
        if (self.sizes == "fixed") != bool(self.fixed):
            raise problem("sizes and fixed do not go together", 'fixed = ["4G", ...] with sizes = "fixed" only')
        if (self.sizes == "share") != bool(self.shares):
            raise problem("sizes and shares do not go together", 'shares = [0.1, ...] with sizes = "share" only')
        if self.sizes == "share" and self.load is None:
            raise problem("sizes are shares of the load, which is not given", "load = 0.6 or other sizes")
        if self.sizes == "azure-2019" and self.largest <= 64 * GIB:
            raise problem("largest is inside the bucket below it", "largest above 64G")
        return self._consistent_lifetimes()

    def _consistent_lifetimes(self) -> Self:
        if self.lifetimes == "forever":
            if self.load is not None:
                raise problem("a load is held by guests that come and go", "count, or lifetimes of W2")
            return self
        if self.tail_mean is None or self.longest is None:
            raise problem("lifetimes need tail_mean and longest", 'tail_mean = "22d", longest = "90d"')
        if not self.shortest < HOUR < self.longest:
            raise problem("shortest and longest must enclose one hour", "shortest < 1h < longest")
        return self


class Boot(Table):
    """How a guest comes up (W14 to W20; P2, P5).

    Attributes:
        time: from creation to ready, ns (P2).
        firmware: 4 KiB accepts and conversions as W14 to W16 counted them for one TDX guest (``w14``), or none.
        firmware_accepts_low: firmware accepts memory below 4 GiB before the kernel runs (W20).
        accept: the kernel accepts memory when it is first used, or all of it at boot (W18).
        touched: share of the memory left to lazy acceptance that is touched at boot (P5).
        touched_final: share of it that is touched in the end (P5).
        touch_time: time from ready until then, ns (P5).
    """

    time: Positive
    firmware: Literal["w14", "none"] = "w14"
    firmware_accepts_low: bool = True
    accept: Literal["lazy", "eager"] = "lazy"
    touched: Share
    touched_final: Share
    touch_time: Positive

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.touched_final < self.touched:
            raise problem("touched_final is below touched", f"{self.touched:g} to 1")
        return self


class Swiotlb(Table):
    """The guest's bounce buffers, shared from boot on (W8 to W10; P5, P8).

    Attributes:
        share: share of the guest's memory, before clamping.
        smallest: lower clamp, bytes.
        largest: upper clamp, bytes.
        aligned: start and length are multiples of 2 MiB (W10, W13); otherwise of 4 KiB, never 2 MiB aligned.
        place: under the top of low memory, or under the region that firmware used (W15; P8).
        touched: share of the buffers that is ever used (P5, P8).
        growth_limit: bytes that the buffers grow by at run time (dynamic swiotlb, W10), 0 for never.
        growth_step: bytes that are added at a time.
        growth_interval: time between two steps, ns.
    """

    share: Share = 0.06
    smallest: Size = 64 * MIB
    largest: Size = GIB
    aligned: bool = False
    place: Literal["top", "below-firmware"]
    touched: Share
    growth_limit: Annotated[Size, _within(0, GIB, "multiples of 2M up to 1G", 2 * MIB)] = 0
    growth_step: Annotated[Size, _within(2 * MIB, GIB, "multiples of 2M up to 1G", 2 * MIB)] = 4 * MIB
    growth_interval: Positive = 10 * MINUTE

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 < self.smallest <= self.largest <= GIB:
            raise problem("smallest and largest are not in order", "0 < smallest <= largest <= 1G")
        return self


class Runtime(Table):
    """4 KiB pages that a running guest shares for DMA (W11; P1, P8, P9).

    Attributes:
        rate_per_gib_hour: conversions to shared per GiB of guest and hour (P1).
        rate_per_guest_hour: the same per guest and hour, added to it (P1, P8).
        pages: adjacent 4 KiB pages of one conversion, naturally aligned (P1).
        placement: over the guest's memory, or side by side in as few 2 MiB regions as possible (P9).
        returns_private: freed pages are converted back and accepted at 4 KiB (P9).
        hold: mean time until a page is freed, ns, exponential (P9).
    """

    rate_per_gib_hour: Rate
    rate_per_guest_hour: Rate
    pages: RunPages
    placement: Literal["scattered", "packed"]
    returns_private: bool
    hold: Positive


class Pins(Table):
    """Pins that device passthrough keeps on shared memory (P6): long-term ones, which do not stay in CMA or ZONE_MOVABLE.

    Attributes:
        share: share of the run-time shared pages that is pinned (P6).
        hold: mean duration of such a pin, ns, exponential (P6).
        swiotlb: share of the touched bounce buffers that is pinned from ready on, for good (P6).
    """

    share: Share
    hold: Positive
    swiotlb: Share


class References(Table):
    """Transient references on private memory (K3, K24).

    Attributes:
        per_punch: probability that another page of the same 2 MiB is faulted in while a run-time conversion punches.
    """

    per_punch: Share


class Reporting(Table):
    """Private memory given back by a running guest. Hypothetical: stock guests do not accept such memory again (K12).

    Attributes:
        order: reported blocks are of this order (W24; W25: 9).
        batch: blocks that are reported at one time (W25).
        share_per_hour: share of the guest's memory that is reported per hour (P5).
        hold: mean time until a reported block is used again, ns, exponential (P5).
    """

    order: Annotated[int, Field(ge=0, le=9)] = 9
    batch: Annotated[int, Field(ge=1, le=512)] = 32
    share_per_hour: Rate
    hold: Positive


class Background(Table):
    """Memory of the host itself that is freed and allocated while guests run (P7).

    Attributes:
        unmovable: size of the unmovable part as a share of the host's free bytes at the start (P7).
        movable: size of the movable part, likewise (P7).
        churn_per_hour: share of either part that is freed and allocated again per hour (P7).
        chunk: bytes freed at a time, naturally aligned (P7).
        hold: mean time that a freed chunk stays free, ns, exponential (P7).
        cache: size of the clean page cache that is there at the start, likewise; reclaim drops of it what guests need, and
            nothing is read again (P7). 0: none, so that nothing can be reclaimed.
    """

    unmovable: Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)]
    movable: Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)]
    churn_per_hour: Rate
    chunk: Chunk
    hold: Positive
    cache: Annotated[float, Field(ge=0, le=0.95, allow_inf_nan=False)] = 0


class Daemons(Table):
    """How khugepaged (for policies with `repair=collapse`) and kcompactd of the host work; the defaults are Linux 6.18's.

    Attributes:
        pages_to_scan: 4K pages that khugepaged looks at each time that it wakes.
        scan_sleep: how long it sleeps then, ns.
        alloc_sleep: how long it sleeps, once in a scan, where it finds no free 2M page, ns.
        max_ptes_none: holes of a 2M that it fills at most.
        compaction_proactiveness: of kcompactd; with 0 it only does what failed allocations and kswapd ask for.
    """

    pages_to_scan: Annotated[int, Field(ge=1, lt=1 << 32)] = 4096
    scan_sleep: Sleep = 10 * SECOND
    alloc_sleep: Sleep = 60 * SECOND
    max_ptes_none: Annotated[int, Field(ge=0, le=511)] = 511
    compaction_proactiveness: Annotated[int, Field(ge=0, le=100)] = 20


# Settings of Linux that a user may look for, and why they are not there.
NOT_MODELLED: Final[Mapping[str, str]] = {
    "daemons.max_ptes_swap": "nothing is swapped out in the model, so that no limit on it could matter",
    "daemons.max_ptes_shared": "no page is mapped by two processes in the model, so that no limit on it could matter",
}


class Scenario(Table):
    """A whole scenario file.

    Attributes:
        title: one line for people.
        duration: length of the simulated time, ns.
        sample_interval: time between two samples, ns.
        policies: what to compare when the user names no policies.
    """

    title: Title
    duration: Positive
    sample_interval: Positive
    policies: Annotated[tuple[PolicyName, ...], Field(strict=False)] = ()
    guests: Guests
    boot: Boot
    swiotlb: Swiotlb
    runtime: Runtime | None = None
    pins: Pins | None = None
    references: References | None = None
    reporting: Reporting | None = None
    background: Background | None = None
    daemons: Daemons = Daemons()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.sample_interval > self.duration:
            raise problem("sample_interval is longer than the duration", "at most duration")
        if self.duration // self.sample_interval > 1_000_000:
            raise problem("sample_interval is too short for the duration", "at most 1,000,000 samples")
        if self.boot.time >= min(self.duration, self.guests.shortest):
            raise problem("boot.time is too long", "less than duration and guests.shortest")
        if self.pins is not None and self.pins.share > 0 and self.runtime is None:
            raise problem("pins.share speaks of run-time shared pages, of which there are none", "pins.share = 0, or [runtime]")
        return self
