"""What a disk may hold after the power is lost: all that was synced, and anything of the rest.

A file system keeps what waits for a sync in memory, and brings it to the disk when and in which
order it likes, a sector at a time. So any of the writes that wait may be there, and any of their
sectors. By what a write that is not there would have made its file larger may be zeros, or not be
there either. A name may stand for what it stood for before, until its directory is synced.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from tests.support.recording_disk import Deed, Told

SECTOR_BYTES = 512

ALL = -1
"""Every sector of a write."""

State: TypeAlias = dict[str, bytes]
"""The files, by the ends of their names."""

Kept: TypeAlias = tuple[int, ...]
"""Of some writes one after the other, which of its sectors each left, as the bits of a number."""


class DrawnFile(NamedTuple):
    """What is left of a file. Two that are equal have the same bytes."""

    name: str
    number: int
    """Which of those that had this name."""
    whole: int
    """So many of the things that it was told are there, from the first one on …"""
    kept: Kept
    """… and this of the next ones."""
    is_grown: bool
    """Whether it is as large as if all were there."""


Drawn: TypeAlias = tuple[DrawnFile, ...]


class Platter:
    """The files of one database, as they are told one thing after the other."""

    def __init__(self) -> None:
        self._numbers = 0
        self._entries: dict[str, list[_File | None]] = {}
        """What each name may stand for; the last is what it does while there is power."""

    def tell(self, told: Told) -> None:
        """One thing more."""
        entries = self._entries.setdefault(told.file, [None])
        match told.deed:
            case Deed.CREATE:
                self._numbers += 1
                entries.append(_File(self._numbers))
            case Deed.DELETE | Deed.DELETE_SYNCED:
                entries.append(None)
            case Deed.WRITE | Deed.TRUNCATE:
                self._now(told).waiting.append(told)
            case Deed.SYNC | Deed.SYNC_ALL:
                self._now(told).sync()
        if told.deed in (Deed.SYNC_ALL, Deed.DELETE_SYNCED):
            for entries in self._entries.values():
                del entries[:-1]

    def draws(self, chance: random.Random, number: int) -> Iterator[Drawn]:
        """Some of the states that may be left now. First those where each file has nothing, or
        all, of what waits; then `number` random ones, of which some may be the same."""
        names = list(self._entries)
        yield self._draw(dict.fromkeys(names, _none), chance)
        if not any(self._waits(name) for name in names):
            return
        yield self._draw(dict.fromkeys(names, _all), chance)
        for name in filter(self._waits, names):
            yield self._draw({**dict.fromkeys(names, _all), name: _none}, chance)
            yield self._draw({**dict.fromkeys(names, _none), name: _all}, chance)
        for _ in range(number):
            yield self._draw({name: chance.choice(WAYS) for name in names}, chance)

    def state(self, drawn: Drawn) -> State:
        """The bytes of a state that was drawn since it was last told something."""
        files = {
            file.number: file for entries in self._entries.values() for file in entries if file
        }
        return {one.name: bytes(files[one.number].content(one)) for one in drawn}

    def _now(self, told: Told) -> "_File":
        file = self._entries[told.file][-1]
        assert file is not None, told
        return file

    def _waits(self, name: str) -> bool:
        entries = self._entries[name]
        return len(entries) > 1 or bool(entries[0] and entries[0].waiting)

    def _draw(self, ways: Mapping[str, "Way"], chance: random.Random) -> Drawn:
        drawn = []
        for name, entries in self._entries.items():
            way = ways[name]
            if way is _none:
                file = entries[0]
            elif way is _all:
                file = entries[-1]
            else:
                file = chance.choice(entries)
            if file:
                is_grown = way not in (_none, _all) and chance.random() < 0.25
                drawn.append(file.drawn(name, way(file.waiting, chance), is_grown=is_grown))
        return tuple(drawn)


class _File:
    def __init__(self, number: int) -> None:
        self.number = number
        self.waiting: list[Told] = []
        self._synced = bytearray()
        self._synced_count = 0

    def sync(self) -> None:
        count = self._synced_count + len(self.waiting)
        self._synced = self.content(DrawnFile("", self.number, count, (), False))
        self._synced_count = count
        self.waiting = []

    def drawn(self, name: str, kept: Kept, *, is_grown: bool) -> DrawnFile:
        """In the shortest way to say it, so that what is the same is equal."""
        count = len(kept)
        whole = next((place for place in range(count) if kept[place] != ALL), count)
        is_grown = is_grown and whole < count
        while not is_grown and count > whole and not kept[count - 1]:
            count -= 1
        return DrawnFile(name, self.number, self._synced_count + whole, kept[whole:count], is_grown)

    def content(self, drawn: DrawnFile) -> bytearray:
        kept = (ALL,) * (drawn.whole - self._synced_count) + drawn.kept
        content = bytearray(self._synced)
        for told, sectors in zip(self.waiting, kept, strict=False):
            if told.deed is Deed.TRUNCATE:
                if sectors:
                    del content[told.offset :]
                continue
            if sectors or drawn.is_grown:
                content.extend(bytes(max(0, told.offset + len(told.data) - len(content))))
            for start, stop in _runs(told, sectors):
                content[start:stop] = told.data[start - told.offset : stop - told.offset]
        return content


def _runs(told: Told, sectors: int) -> Iterator[tuple[int, int]]:
    """From where to where in the file these sectors of a write are."""
    end = told.offset + len(told.data)
    if sectors == ALL:
        yield told.offset, end
        return
    first = told.offset // SECTOR_BYTES
    for number in range(_sector_count(told)):
        if sectors >> number & 1:
            start = (first + number) * SECTOR_BYTES
            yield max(start, told.offset), min(start + SECTOR_BYTES, end)


def _sector_count(told: Told) -> int:
    if told.deed is Deed.TRUNCATE:
        return 1
    return (told.offset + len(told.data) - 1) // SECTOR_BYTES - told.offset // SECTOR_BYTES + 1


# --- what may become of what waits --------------------------------------------------------------

Way: TypeAlias = Callable[[list[Told], random.Random], Kept]


def _none(waiting: list[Told], chance: random.Random) -> Kept:
    return (0,) * len(waiting)


def _all(waiting: list[Told], chance: random.Random) -> Kept:
    return (ALL,) * len(waiting)


def _some(waiting: list[Told], chance: random.Random) -> Kept:
    """Each or not: also a later one without an earlier one."""
    share = chance.random()
    return tuple(ALL if chance.random() < share else 0 for _ in waiting)


def _torn_last(waiting: list[Told], chance: random.Random) -> Kept:
    """The first ones, of the next one some sectors, of the others nothing. Mostly it is the very
    last that is torn."""
    count = len(waiting)
    if not count:
        return ()
    torn = count - 1 if chance.random() < 0.5 else chance.randrange(count)
    return (ALL,) * torn + (_torn(waiting[torn], chance),) + (0,) * (count - 1 - torn)


def _torn_all(waiting: list[Told], chance: random.Random) -> Kept:
    return tuple(_torn(told, chance) for told in waiting)


def _torn(told: Told, chance: random.Random) -> int:
    count = _sector_count(told)
    if chance.random() < 0.5:
        sectors = (1 << chance.randrange(count + 1)) - 1  # as a disk's head goes
    else:
        sectors = chance.getrandbits(count)  # as a queue had them
    return ALL if sectors == (1 << count) - 1 else sectors


WAYS: tuple[Way, ...] = (_none, _all, _some, _torn_last, _torn_all)
