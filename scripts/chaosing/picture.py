"""The throughput of a campaign over time, drawn as an SVG without a library."""

from collections.abc import Sequence
from pathlib import Path

from scripts.chaosing.checker import Verdict
from scripts.chaosing.history import Line
from scripts.chaosing.report import rates

WIDTH, HEIGHT = 900, 300
LEFT, RIGHT, TOP, BOTTOM = 50, 10, 40, 40
STEPS = 180
LINE_EVERY = 20


def draw(path: Path, lines: Sequence[Line], verdict: Verdict) -> None:
    """Draws tasks ended a second, the calm phases, and when the distributor was away."""
    evidence = verdict.evidence
    length_s = evidence.ended_at - evidence.began_at
    step_s = max(1.0, length_s / STEPS)
    each = rates(verdict, step_s)
    top = max(LINE_EVERY, -(-max(each) // LINE_EVERY) * LINE_EVERY)

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(seconds / length_s, 0), 1)

    def y(rate: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * rate / top

    def box(since: float, until: float, colour: str) -> str:
        wide = max(x(until) - x(since), 0.7)
        high = y(0) - y(top)
        return f'<rect x="{x(since):.1f}" y="{TOP}" width="{wide:.1f}" height="{high}" {colour}/>'

    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    for line in lines:
        if line["event"] == "phase" and not line["mix"]:
            parts.append(box(line["from_s"], line["to_s"], 'fill="#dff0df"'))
    for since, until in evidence.away():
        span = (since - evidence.began_at, until - evidence.began_at)
        parts.append(box(*span, 'fill="#d33" fill-opacity="0.55"'))
    for rate in range(0, int(top) + 1, LINE_EVERY):
        parts.append(f'<path d="M{LEFT} {y(rate):.1f}H{WIDTH - RIGHT}" stroke="#ccc"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(rate) + 4:.1f}" text-anchor="end">{rate}</text>')
    every_s = max(10, round(length_s / 600) * 60)
    for seconds in range(0, int(length_s) + 1, every_s):
        label = f"{seconds // 60}:{seconds % 60:02}"
        parts.append(
            f'<text x="{x(seconds):.1f}" y="{HEIGHT - BOTTOM + 16}" '
            f'text-anchor="middle">{label}</text>'
        )
    points = " ".join(
        f"{x((number + 0.5) * step_s):.1f},{y(rate):.1f}" for number, rate in enumerate(each)
    )
    parts.append(f'<polyline points="{points}" fill="none" stroke="#124" stroke-width="1.3"/>')
    title = (
        f"Tasks ended a second, mean of each {step_s:.0f} s, over minutes. "
        "Green: calm. Red: the distributor is dead or stopped."
    )
    parts.append(f'<text x="{LEFT}" y="20">{title}</text>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">'
    )
    path.write_text("\n".join([head, *parts, "</svg>"]) + "\n")
