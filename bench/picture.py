"""The results as a picture: one panel for each case, one bar for each peer, as multiples of the case's base.

Rules: bars start at zero and are linear; the one of plain TCP, a bound and no program to choose, is cut off where it
would hide the others, and looks cut off. Every bar has its figure and its median beside it. Readable on light and dark
pages. Refuses to compute anything but where things stand.
"""

from html import escape
from typing import Any

from bench.table import amount, times

Json = dict[str, Any]

_WIDTH, _GAP, _PAD = 960, 20, 18
_PANEL = (_WIDTH - _GAP) // 2
_ROW, _BAR = 22, 13
_LABEL, _BARS = 112, 188
_TOP = 66
_LEGEND = (
    "longer is faster; the thin line is 1 × the tool in grey; plain TCP is a bound, without login, cipher or digest, "
    "cut off where it would hide the others"
)
_STYLE = """
  .page{fill:#ffffff} .card{fill:#f6f8fa;stroke:#d8dee4} .title{fill:#1f2328;font-weight:600}
  .text{fill:#424a53} .soft{fill:#6e7781} .ours{fill:#0969da} .other{fill:#b3bcc6} .base{fill:#8c959f}
  .bound{fill:#d8dee4} .mark{stroke:#8c959f} .cut{fill:#f6f8fa} .strong{fill:#0969da;font-weight:600}
  .halo{stroke:#f6f8fa;stroke-width:5px;paint-order:stroke}
  text{font-family:ui-sans-serif,system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;font-size:12px}
  @media (prefers-color-scheme: dark){
    .page{fill:#0d1117} .card{fill:#161b22;stroke:#30363d} .title{fill:#e6edf3}
    .text{fill:#c9d1d9} .soft{fill:#8b949e} .ours{fill:#388bfd} .other{fill:#57606a} .base{fill:#768390}
    .bound{fill:#30363d} .mark{stroke:#768390} .cut{fill:#161b22} .strong{fill:#58a6ff}
    .halo{stroke:#161b22}
  }
"""


def draw(results: Json) -> str:
    """The picture as SVG."""
    cases = [case for case in results["cases"] if any(peer["ratio"] for peer in case["peers"])]
    parts, bottom = [], _TOP
    beside = _beside(results)
    for at in range(0, len(cases), 2):
        row = cases[at : at + 2]
        height = max(_height(case) for case in row)
        for side, case in enumerate(row):
            parts.append(_panel(case, side * (_PANEL + _GAP), bottom, height))
        if len(row) == 1 and beside:
            parts.append(_words("Beside speed", beside, _PANEL + _GAP, bottom, height))
        bottom += height + _GAP
    machine = results["machine"]
    below = (
        f"{machine['cpu']}, {machine['cores']} cores, both ends on one machine; files on {machine['files']}; "
        "medians; ours is the whole process, login included"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 16}" width="{_WIDTH}" '
        f'height="{bottom + 16}" role="img" aria-label="Speed as multiples of other tools">\n<style>{_STYLE}</style>\n'
        f'<rect class="page" width="{_WIDTH}" height="{bottom + 16}" rx="8"/>\n'
        + _text(_PAD, 28, "Speed as a multiple of scp or rsync, in the same round", "title", 'style="font-size:17px"')
        + _text(
            _PAD,
            48,
            _LEGEND,
            "soft",
        )
        + "".join(parts)
        + _text(_PAD, bottom + 2, below, "soft", 'style="font-size:11px"')
        + "</svg>\n"
    )


def _height(case: Json) -> int:
    notes = bool(case["ceiling"] and case["ceiling"]["share"]) + bool(case["after_login"] and case["unit"] == "MB/s")
    return 44 + _ROW * len(case["peers"]) + 18 * notes + 8


def _text(x: float, y: float, text: str, kind: str, more: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}" {more}>{escape(text)}</text>\n'


def _card(left: int, top: int, height: int, title: str) -> list[str]:
    inner = _PAD // 2
    return [
        f'<g transform="translate({left + inner / 2:.0f},{top})">\n',
        f'<rect class="card" width="{_PANEL - inner}" height="{height}" rx="6"/>\n',
        _text(14, 24, title, "title", 'style="font-size:13px"'),
    ]


def _words(title: str, lines: list[tuple[str, str]], left: int, top: int, height: int) -> str:
    out, y = _card(left, top, height, title), 50
    for what, how in lines:
        out += [_text(14, y, what, "text"), _text(14, y + 16, how, "soft")]
        y += 44
    return "".join(out) + "</g>\n"


def _beside(results: Json) -> list[tuple[str, str]]:
    """Memory and the server under load, in words."""
    lines = []
    for case in results["cases"]:
        for peer in case["peers"]:
            if peer["name"] == "ours" and case["name"] in ("bulk", "huge"):
                peak, after = peer["peak"], peer["resident_after_login"]
                later = f", {after >> 20} MiB after its login" if after else ""
                lines.append(
                    (
                        f"memory of this program, {case['title']}",
                        f"client {peak['sender'] >> 20} MiB at most{later}; server {peak['receiver'] >> 20} MiB",
                    )
                )
    for load in results["loads"]:
        lines.append(
            (
                f"{load['clients']} clients at once, {load['size'] >> 20} MiB each",
                f"{load['total']['median'] / 1e6:,.0f} MB/s together, {load['of_one_client']['median']:.0%} of one "
                f"client; slowest {load['slowest_to_median']['median']:.1f} × the median",
            )
        )
    return lines


def _panel(case: Json, left: int, top: int, height: int) -> str:
    out = _card(left, top, height, case["title"])
    peers = sorted(case["peers"], key=_order)
    known = [peer["ratio"]["median"] for peer in peers if peer["ratio"] and peer["name"] != "plain"]
    scale = _BARS / (max(known, default=1.0) * 1.06)
    y, base = 40, 14 + _LABEL + scale
    bottom = y + _ROW * len(peers) - 4
    out.append(f'<line class="mark" x1="{base:.1f}" x2="{base:.1f}" y1="36" y2="{bottom}" stroke-width="1"/>\n')
    for peer in peers:
        out.append(_bar(case, peer, y, scale))
        y += _ROW
    for note in _notes(case):
        out.append(_text(14, y + 12, note, "soft", 'style="font-size:11px"'))
        y += 18
    return "".join(out) + "</g>\n"


def _order(peer: Json) -> tuple[bool, float]:
    """The fastest first, the bound last."""
    return peer["name"] == "plain", -(peer["ratio"] or {"median": 0.0})["median"]


def _bar(case: Json, peer: Json, y: int, scale: float) -> str:
    ratio = peer["ratio"]
    name = peer["name"]
    ours = name == "ours"
    kind = {"ours": "ours", "plain": "bound"}.get(name, "base" if peer["title"] == case["base"] else "other")
    start, middle = 14 + _LABEL, y + _BAR - 2
    out = [_text(start - 8, middle, peer["title"], "strong" if ours else "text", 'text-anchor="end"')]
    length = 0.0
    if ratio:
        whole = ratio["median"] * scale
        length = max(1.5, min(whole, _BARS))
        out.append(f'<rect class="{kind}" x="{start}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="2"/>\n')
        if whole > _BARS:  # two slanting cuts: it goes on
            for at in (length - 14, length - 8):
                x = start + at
                points = f"{x:.1f},{y + _BAR + 1} {x + 3:.1f},{y + _BAR + 1} {x + 7:.1f},{y - 1} {x + 4:.1f},{y - 1}"
                out.append(f'<polygon class="cut" points="{points}"/>\n')
    told = f"{times(ratio['median'])}×" if ratio else "-"
    out.append(_text(start + length + 6, middle, told, "halo " + ("strong" if ours else "text")))
    absolute = amount(case["unit"], case["bytes"], peer["seconds"]["median"])
    out.append(_text(_PANEL - 24, middle, absolute, "strong" if ours else "soft", 'text-anchor="end"'))
    return "".join(out)


def _notes(case: Json) -> list[str]:
    notes = []
    if case["ceiling"] and case["ceiling"]["share"]:
        ceiling = case["ceiling"]
        speed = ceiling["bytes_per_second"]["median"] / 1e6
        notes.append(
            f"ours is {ceiling['share']['median']:.0%} of what cipher and digest alone reach, {speed:,.0f} MB/s"
        )
    if case["after_login"] and case["unit"] == "MB/s":
        notes.append(f"ours after its login: {case['after_login']['share_of_plain']['median']:.0%} of plain TCP")
    return notes
