"""The meters of tools that cannot be mistaken: tqdm, curl, wget, pv, dd, rsync, apt. One look at a line is enough.

Sizes: wget, curl and pv (and the rates of rsync) count in powers of 1,024; tqdm, dd and apt in powers of 1,000 (tqdm by
default: its output does not tell).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from koubou_panel.core.progress.meter import (
    CERTAIN,
    CLOCK,
    KIBI,
    KILO,
    SPAN,
    Reading,
    number,
    reading,
    scaled,
    seconds,
    shape,
)

# desc:  37%|███       | 37/100 [00:12<00:20,  3.1it/s, loss=0.2]; in a narrow terminal there is no bar.
_TQDM = re.compile(
    rf"(?<!\d)\d{{1,3}}%\s?(?:\|[^|]*\|)?\s*(?P<done>[\d.]+)(?P<scale>[kMGTPEZY]?)/"
    rf"(?P<total>[\d.]+)(?P<of>[kMGTPEZY]?)\s*\[(?:\d+ days?, )?{CLOCK}<(?P<left>(?:\d+ days?, )?[^,\]]+),\s*"
    r"(?P<rate>[^,\]]+)"
)
# desc: 37it [00:12,  3.1it/s]
_TQDM_OPEN = re.compile(
    rf"(?<![\w.])(?P<done>\d[\d.]*)(?P<scale>[kMGTPEZY]?)[^\s\d\[\]]* "
    rf"\[(?:\d+ days?, )?{CLOCK},\s*(?P<rate>[^,\]]+/[^,\]]+)"
)
_TQDM_RATE = re.compile(
    r"(?P<slow>[\d.]+)s/(?P<per>\S+)|(?P<fast>[\d.]+)(?P<scale>[kMGTPEZY]?)(?P<unit>.*)/s$"
)

# The twelve columns of curl: percent and size of all, of what came, of what went; two speeds, three times, speed now.
_SIZE = r"(\d+(?:\.\d+)?[kMGTP]?)"
_TIME = r"(--:--:--|\d+:\d\d:\d\d|\d+d(?: \d\dh)?)"
_CURL = re.compile(
    rf"\s*(\d+)\s+{_SIZE}\s+(\d+)\s+{_SIZE}\s+(\d+)\s+{_SIZE}\s+{_SIZE}\s+{_SIZE}\s+{_TIME}\s+{_TIME}\s+{_TIME}\s+{_SIZE}\s*"
)
_CURL_BAR = re.compile(r"#+\s+(?P<percent>\d{1,3}\.\d)%\s*")
#    50K .......... .......... ..........  5%  496K 2s
_WGET_DOTS = re.compile(
    r"\s*(?P<at>\d+)(?P<scale>[KM]) (?P<dots>[.,]+(?: [.,]+)*)\s+(?:(?P<percent>\d{1,3})%\s+)?[\d.]+[KMG]?"
    r"(?: (?P<left>(?:\d+[dhms])+)|=\S+)?\s*"
)
# Bytes a dot, by the unit of the row and the dots in a group: the styles default, binary, mega and giga.
_DOT_BYTES = {("K", 10): 1 << 10, ("K", 16): 8 << 10, ("K", 8): 64 << 10, ("M", 8): 1 << 20}
# archive.tar    5%[>      ] 398.62K  1.94MB/s    eta 3s
_WGET_BAR = re.compile(
    r"(?:(?<!\d)(?P<percent>\d{1,3})%)?\[[=+<> ]{3,}\]\s+(?P<done>[\d.,]+)(?P<scale>[KMGT]?)\s+"
    r"(?P<rate>[\d.]+|--\.-)(?P<of>[KMGT]?)B/s(?:\s+eta (?P<left>[\dhms ]+)|\s+in .*)?\s*$"
)
# 1.60MiB 0:00:01 [2.21MiB/s] [====>   ] 20% ETA 0:00:02
_PV = re.compile(
    r"(?<![\w.])(?P<done>[\d.]+)\s?(?P<scale>[kKMGT]?)(?P<unit>i?B?)\s+(?:\d+:)?\d+:\d\d:\d\d\s+"
    r"\[\s*(?P<rate>[\d.]+)\s?(?P<of>[kKMGT]?)(?:i?B)?\s?/s\](?P<rest>.*)"
)
_PV_END = re.compile(rf"\s(?P<percent>\d{{1,3}})%(?:\s+ETA\s+(?P<left>{CLOCK}))?")
_DD = re.compile(r"(?P<done>\d+) bytes(?: \([^)]*\))? copied, [\d.]+ s, (?P<rate>[\d.]+) (?P<of>[kMGT]?)B/s")
#      3,960,000   6%   28.68MB/s    0:00:00 (xfr#198, to-chk=2802/3001); behind a whole file the time is what it took.
_RSYNC = re.compile(
    rf"\s*(?P<done>\d[\d.,]*)(?P<scale>[KMGT]?)\s+(?P<percent>\d{{1,3}})%\s+(?P<rate>[\d.]+)(?P<of>[kMGT]?)B/s\s+"
    rf"(?P<left>{CLOCK}|\?\?:\?\?:\?\?)\s*(?P<file>\(xfr#\d+, (?:to|ir)-ch(?:ec)?k=\d+/\d+\)\s*)?"
)
_APT_STATUS = re.compile(r"(?:pm|dl)status:[^:]*:(?P<percent>\d{1,3}(?:\.\d+)?):(?P<text>.*)")
_APT_UPDATE = re.compile(
    rf"(?P<percent>\d{{1,3}})% \[(?P<text>[^\]]*[^\W\d][^\]]*)\](?: \[.*\])?"
    rf"(?:\s+(?P<rate>[\d.,]+) (?P<of>[kMG]?)B/s)?(?:\s+(?P<left>{SPAN}))?\s*"
)


def read_tool(line: str) -> Reading | None:
    """What `line` says if it is of one of the tools."""
    for form in _FORMS:
        found = form(line)
        if found is not None:
            return found
    return None


def _tqdm(line: str) -> Reading | None:
    match = _TQDM.search(line) if "<" in line and "%" in line else None
    if match is None:
        return None
    rate, unit = _tqdm_rate(match["rate"], scaled_by=match["scale"] + match["of"])
    return reading(
        f"tqdm/{match['total']}{match['of']} {shape(line[: match.start()])}",
        CERTAIN,
        done=scaled(match["done"], match["scale"]),
        total=scaled(match["total"], match["of"]),
        unit=unit,
        rate=rate,
        left=seconds(match["left"]),
        text=line[: match.start()],
    )


def _tqdm_open(line: str) -> Reading | None:
    match = _TQDM_OPEN.search(line) if " [" in line and "/" in line else None
    if match is None:
        return None
    rate, unit = _tqdm_rate(match["rate"], scaled_by=match["scale"])
    done = scaled(match["done"], match["scale"])
    return reading(
        f"tqdm {shape(line[: match.start()])}",
        CERTAIN,
        done=done,
        unit=unit,
        rate=rate,
        text=line[: match.start()],
    )


def _tqdm_rate(text: str, *, scaled_by: str) -> tuple[float | None, str]:
    """(units per second, unit) of `3.1it/s`, `1.20s/it`, `25.0MB/s` or `?it/s`."""
    text = text.strip()
    match = _TQDM_RATE.match(text)
    if match is None:
        return None, text.removeprefix("?").removesuffix("/s").strip()[:16]
    if match["slow"]:
        step_s = number(match["slow"])
        return (1 / step_s if step_s else None), match["per"][:16]
    scale, unit = match["scale"], match["unit"]
    if not scaled_by and unit not in {"B", "it", ""}:
        scale, unit = "", scale + unit
    return scaled(match["fast"], scale), unit.strip()[:16]


def _curl(line: str) -> Reading | None:
    match = _CURL.fullmatch(line)
    if match is None:
        return None
    _, total_text, got_percent, got, sent_percent, sent, *_, left, speed = match.groups()
    done, total = _curl_size(got) + _curl_size(sent), _curl_size(total_text)
    # Where the size is not known, what came so far stands for it.
    is_open = got_percent == sent_percent == "0" and done >= total
    return reading(
        "curl",
        CERTAIN,
        done=done,
        total=None if is_open else max(total, done),
        unit="B",
        rate=_curl_size(speed),
        left=seconds(left),
    )


def _curl_size(text: str) -> float:
    return number(text) if text[-1].isdecimal() else scaled(text[:-1], text[-1], KIBI)


def _curl_bar(line: str) -> Reading | None:
    match = _CURL_BAR.fullmatch(line) if line.startswith("#") else None
    return _percent("curl", match) if match else None


def _wget_dots(line: str) -> Reading | None:
    match = _WGET_DOTS.fullmatch(line)
    if match is None:
        return None
    # The rate of a row is that of its own few kilobytes, and leaps: what came is counted instead.
    dots = match["dots"]
    dot_bytes = _DOT_BYTES.get((match["scale"], len(dots.split()[0])), 0)
    done = scaled(match["at"], match["scale"], KIBI) + dot_bytes * (len(dots) - dots.count(" "))
    return reading(
        "wget",
        CERTAIN,
        done=done,
        fraction=None if match["percent"] is None else number(match["percent"]) / 100,
        unit="B",
        left=seconds(match["left"] or ""),
    )


def _wget_bar(line: str) -> Reading | None:
    match = _WGET_BAR.search(line) if "B/s" in line and "[" in line else None
    if match is None:
        return None
    return reading(
        "wget",
        CERTAIN,
        done=scaled(match["done"], match["scale"], KIBI),
        fraction=None if match["percent"] is None else number(match["percent"]) / 100,
        unit="B",
        rate=scaled(match["rate"], match["of"], KIBI),
        left=seconds(match["left"] or ""),
        text=line[: match.start()],
    )


def _pv(line: str) -> Reading | None:
    match = _PV.search(line) if "/s]" in line else None
    if match is None:
        return None
    is_bytes = "B" in match["unit"]
    base = KIBI if is_bytes else KILO
    end = _PV_END.search(match["rest"])
    return reading(
        "pv",
        CERTAIN,
        done=scaled(match["done"], match["scale"], base),
        fraction=number(end["percent"]) / 100 if end else None,
        unit="B" if is_bytes else "",
        rate=scaled(match["rate"], match["of"], base),
        left=seconds(end["left"] or "") if end else None,
        text=line[: match.start()],
    )


def _dd(line: str) -> Reading | None:
    match = _DD.match(line) if " copied, " in line else None
    if match is None:
        return None
    rate = scaled(match["rate"], match["of"])
    return reading("dd", CERTAIN, done=number(match["done"]), unit="B", rate=rate)


def _rsync(line: str) -> Reading | None:
    match = _RSYNC.fullmatch(line) if "%" in line and "B/s" in line else None
    if match is None:
        return None
    done = match["done"] if match["scale"] else re.sub(r"[.,]", "", match["done"])
    return reading(
        "rsync",
        CERTAIN,
        done=scaled(done, match["scale"]),
        fraction=number(match["percent"]) / 100,
        unit="B",
        rate=scaled(match["rate"], match["of"], KIBI),
        left=None if match["file"] else seconds(match["left"]),
    )


def _apt_status(line: str) -> Reading | None:
    match = _APT_STATUS.fullmatch(line)
    return _percent("apt", match, text=match["text"]) if match else None


def _apt_update(line: str) -> Reading | None:
    match = _APT_UPDATE.fullmatch(line)
    if match is None:
        return None
    rate = scaled(match["rate"], match["of"]) if match["rate"] else None
    unit = "B" if rate else ""
    return _percent("apt", match, unit=unit, rate=rate, left=seconds(match["left"] or ""), text=match["text"])


def _percent(
    key: str,
    match: re.Match[str],
    *,
    unit: str = "",
    rate: float | None = None,
    left: float | None = None,
    text: str = "",
) -> Reading | None:
    fraction = number(match["percent"]) / 100
    return reading(key, CERTAIN, fraction=fraction, unit=unit, rate=rate, left=left, text=text)


_FORMS: tuple[Callable[[str], Reading | None], ...] = (
    _tqdm,
    _tqdm_open,
    _curl,
    _curl_bar,
    _wget_dots,
    _wget_bar,
    _pv,
    _dd,
    _rsync,
    _apt_status,
    _apt_update,
)
