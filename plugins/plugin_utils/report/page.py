# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A report as one self-contained HTML page, without scripts, fonts or images from elsewhere."""

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from ...module_utils.printable import printable_lines
from ..progress.limits import OTHER_LAPTOPS
from ..times import parse_time
from .chain_svg import ROW
from .chain_view import NAMES, chain_view
from .rates import Span, samples, shifted, spans, summed
from .svg import highest, style_of, throughput_plot
from .text import NOTHING, SPACE, duration, laptops, percent, rate, size

TEMPLATES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "templates")

COLOURS = 7
"""The number of limits that have a colour of their own; the others share one."""

FEW = 8
"""Up to so many laptops have their advice in the table. More of them mostly have the same advice, which is shown once."""

TITLES = {"capture": "Capture", "restore": "Restore", "verify": "Comparison", "check": "Restore in check mode"}


def render(report: Mapping[str, Any]) -> str:
    """Return the page of a report, which ``summary.summary`` made."""
    import markupsafe  # see _environment

    found = {entry["host"]: spans(samples(entry["timeline"])) for entry in report["laptops"]}
    of_laptops = {host: of_one for host, of_one in found.items() if of_one}
    plots = {name: markupsafe.Markup(plot) for name, plot in _plots(report, of_laptops).items()}
    fleet = plots.pop("", None)
    chain = chain_view(report)
    waiting, limits = _without_waiting(report["limits"])
    page: str = (
        _environment(list(report["limits"]))
        .get_template("report.html.j2")
        .render(
            report=report,
            heading=f"{TITLES[report['purpose']]}{' of ' + report['image'] if report['image'] else ''}",
            plots=plots,
            fleet=fleet,
            anchors={host: position for position, host in enumerate(plots, 1)},
            phases=_phases(of_laptops.values()),
            advice=_advice(report) if len(report["laptops"]) > FEW else {},
            waiting=waiting,
            limits=limits,
            names=NAMES,
            chain=chain,
            chain_row=ROW,
            picture=markupsafe.Markup(chain.picture) if chain else None,
            sources={
                NAMES[kind]: {**source, "kind": kind} for kind, source in report["sources"].items() if source["bytes"]
            },
        )
    )
    return page


def _environment(known: list[str]) -> Any:
    """Return what fills in templates. The limits that are ``known`` have colours in that order."""
    # Ansible needs jinja2, but a check that only imports this module may lack it.
    import jinja2
    import markupsafe

    def shown(value: Any) -> Any:
        """Prepare each value of the template, before it is escaped."""
        if isinstance(value, markupsafe.Markup):
            return value
        return NOTHING if value is None else printable_lines(str(value))

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        size=size,
        rate=rate,
        duration=duration,
        percent=percent,
        laptops=laptops,
        limit_class=lambda name: f"limit-{min(known.index(name), COLOURS) if name in known else COLOURS}",
        style_of=style_of,
        clock=lambda value: f"{value[:10]}{SPACE}{value[11:16]}{SPACE}UTC",  # RFC 3339 in UTC, without its seconds
    )
    return environment


def _plots(report: Mapping[str, Any], of_laptops: Mapping[str, list[Span]]) -> dict[str, str]:
    """Return the plots of these laptops by their names, and that of all together under the empty name."""
    entries = {entry["host"]: entry for entry in report["laptops"]}
    own = {host: summed(shifted(of_one, -of_one[0].start)) for host, of_one in of_laptops.items()}
    seconds = max((span.end for of_one in own.values() for span in of_one), default=0.0)
    top = max(map(highest, own.values()), default=0.0)
    plots = {
        host: throughput_plot(_title(host, of_one, entries[host]), of_one, seconds, top) for host, of_one in own.items()
    }
    if len(of_laptops) > 1:
        fleet = _together(of_laptops, {host: parse_time(entries[host]["started"]) for host in of_laptops})
        title = f"Throughput of all {len(of_laptops)} laptops together over time, at most {rate(highest(fleet))}"
        plots[""] = throughput_plot(title, fleet, max(span.end for span in fleet), highest(fleet))
    return plots


def _together(of_laptops: Mapping[str, list[Span]], started: Mapping[str, datetime | None]) -> list[Span]:
    """Return the sum over all laptops, from the time at which the first one began."""
    first = min(filter(None, started.values()), default=None)
    late = {host: (when - first).total_seconds() if when and first else 0.0 for host, when in started.items()}
    begin = min(late[host] + of_one[0].start for host, of_one in of_laptops.items())
    return summed([span for host, of_one in of_laptops.items() for span in shifted(of_one, late[host] - begin)])


def _title(host: str, of_one: list[Span], entry: Mapping[str, Any]) -> str:
    return (
        f"Throughput of {host} over time: mean {rate(entry['throughput'])}, at most {rate(highest(of_one))}, "
        f"{duration(of_one[-1].end)}"
    )


def _phases(of_laptops: Iterable[list[Span]]) -> dict[str, str]:
    """Return the names of the phases in the plots, by their style."""
    names: dict[str, dict[str, None]] = {}
    for of_one in of_laptops:
        for span in of_one:
            if span.size:
                names.setdefault(style_of(span.phase), {})[span.phase] = None
    return {style: ", ".join(of_style) for style, of_style in names.items()}


def _without_waiting(limits: Mapping[str, float]) -> tuple[float, Mapping[str, float]]:
    """Return the share of the time in which laptops waited for other laptops, and the shares of the rest. It says what limited them all."""
    rest = {name: share for name, share in limits.items() if name != OTHER_LAPTOPS}
    whole = sum(rest.values())
    if not whole or len(rest) == len(limits):
        return 0.0, limits
    return limits[OTHER_LAPTOPS], {name: share / whole for name, share in rest.items()}


def _advice(report: Mapping[str, Any]) -> dict[str, int]:
    """Return each advice and the number of laptops that it is for, the most frequent first."""
    counts: dict[str, int] = {}
    for entry in report["laptops"]:
        if entry["limited_by"] and (advice := entry["limited_by"]["explanation"]):
            counts[advice] = counts.get(advice, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
