"""The results as text for a terminal.

Rules: every figure beside its smallest and largest, and the number of rounds; what was left out is printed with
the reason. It computes nothing but units.
"""

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]
_COLUMNS = f"{'CPU s':>12}{'peak MiB':>12}{'rounds':>8}"
_HEAD = f"{'ratio':>8}  {'(min-max)':<15}{'median':>11}  {'(min-max)':<17}{_COLUMNS}"


def amount(unit: str, size: int, seconds: float) -> str:
    """A figure in the unit of its case: `321 MB/s`, `1.07 s`."""
    if unit == "MB/s":
        return f"{size / seconds / 1e6:,.0f} MB/s"
    if seconds < 1:
        return f"{seconds * 1000:,.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
    return f"{seconds:,.2f} s" if seconds < 100 else f"{seconds:,.0f} s"


def times(ratio: float) -> str:
    """A multiple with three digits that count."""
    if ratio >= 99.5:
        return f"{ratio:,.0f}"
    return f"{ratio:.1f}" if ratio >= 9.95 else f"{ratio:.2f}"


def lines(results: Json) -> Iterator[str]:
    """The whole table."""
    machine = results["machine"]
    memory = f"{machine['memory'] / (1 << 30):.0f} GiB" if machine["memory"] else "unknown"
    yield f"{machine['cpu']}, {machine['cores']} cores, {memory} of memory, {machine['kernel']}"
    yield f"files on {machine['files']}, disk {machine['disk']}, load before {machine['load_before']}"
    yield ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    for line in results["lines"]:
        yield (
            f"line of {line['rtt'] * 1000:.0f} ms and {line['rate'] / 1e6:.0f} MB/s: measured "
            f"{line['rtt_measured'] * 1000:.1f} ms, {line['rate_there'] / 1e6:.1f} there, "
            f"{line['rate_back'] / 1e6:.1f} back; its own ceiling {line['ceiling'] / 1e6:,.0f} MB/s"
            + (f"; REFUSED: {line['wrong']}" if line["wrong"] else "")
        )
    for case in results["cases"]:
        yield ""
        yield from _case(case)
    for load in results["loads"]:
        yield ""
        yield from _load(load)
    for name, why in results["left_out"].items():
        yield f"\n{name}: left out: {why}"


def _case(case: Json) -> Iterator[str]:
    yield f"{case['title']}\n{'x ' + case['base']:<20}{_HEAD}"
    resident = 0
    for peer in case["peers"]:
        seconds, ratio = peer["seconds"], peer["ratio"]
        each = [amount(case["unit"], case["bytes"], seconds[key]) for key in ("min", "max")]
        low, high = reversed(each) if case["unit"] == "MB/s" else each
        span = f"({_bare(low)}-{_bare(high)})" if seconds["rounds"] > 1 else ""
        told = times(ratio["median"]) if ratio else "-"
        ratio_span = f"({times(ratio['min'])}-{times(ratio['max'])})" if ratio and ratio["rounds"] > 1 else ""
        cpu = f"{peer['cpu']['sender']:.2f}+{peer['cpu']['receiver']:.2f}"
        peak = f"{peer['peak']['sender'] >> 20}+{peer['peak']['receiver'] >> 20}"
        yield (
            f"  {peer['title']:<18}{told:>8}  {ratio_span:<15}"
            f"{amount(case['unit'], case['bytes'], seconds['median']):>11}  {span:<17}{cpu:>12}{peak:>12}"
            f"{seconds['rounds']:>8}"
        )
        if after := peer["resident_after_login"]:
            resident = after
    if resident:
        yield f"  ours keeps {resident >> 20} MiB at most after its login (before it, scrypt takes its memory)"
    if ceiling := case["ceiling"]:
        share = f": ours is {ceiling['share']['median']:.0%} of it" if ceiling["share"] else ""
        spread = ceiling["bytes_per_second"]
        yield (
            f"  ceiling of the cipher and the digest {spread['median'] / 1e6:,.0f} MB/s "
            f"({spread['min'] / 1e6:,.0f}-{spread['max'] / 1e6:,.0f}){share}"
        )
    if after := case["after_login"]:
        share = after["share_of_plain"]
        yield (
            f"  ours after its login {amount(case['unit'], case['bytes'], after['seconds']['median'])}: "
            f"{share['median']:.0%} ({share['min']:.0%}-{share['max']:.0%}) of plain TCP"
        )
    for name, why in case["left_out"].items():
        yield f"  left out: {name}: {why}"


def _bare(text: str) -> str:
    return text.removesuffix(" MB/s").removesuffix(" s") if not text.endswith("ms") else text.replace(" ms", "ms")


def _load(load: Json) -> Iterator[str]:
    yield f"server under load: {load['clients']} clients at once, {load['size'] >> 20} MiB each"
    yield (
        f"  together {load['total']['median'] / 1e6:,.1f} MB/s ({load['total']['min'] / 1e6:,.1f}-"
        f"{load['total']['max'] / 1e6:,.1f}), {load['total']['rounds']} rounds"
    )
    yield (
        f"  one client with all of it {load['alone_whole']['median'] / 1e6:,.1f} MB/s "
        f"(together: {load['of_one_client']['median']:.0%}), with one file "
        f"{load['alone_one']['median'] / 1e6:,.1f} MB/s"
    )
    yield (
        f"  slowest client {load['slowest']['median']:.2f} s, {load['slowest_to_median']['median']:.2f} x the median "
        f"client; peak of the server {load['peak_server'] >> 20} MiB, of a client {load['peak_client'] >> 20} MiB"
    )
