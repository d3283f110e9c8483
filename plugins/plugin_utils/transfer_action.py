# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action plugins of both transfers share."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.module_utils.common.yaml import yaml_load
from ansible.plugins.action import ActionBase

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import BOUNDS, SSH
from ansible_collections.fleet.imaging.plugins.module_utils.engine.level import AUTO, parse_level
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.printable import printable_all
from ansible_collections.fleet.imaging.plugins.module_utils.stream.credentials import LAPTOP, Name
from ansible_collections.fleet.imaging.plugins.module_utils.ticket import Ticket
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import Timeouts

from .detached_module import DetachedModule
from .interruption import interruptible
from .laptop_answer import checked_answer, documented_fields, required_outside_check_mode
from .progress.limits import AdviceContext
from .progress.line import ProgressEvent
from .progress.meter import Meter
from .progress.publisher import Publisher
from .run_authority import run_authority
from .task_failure import fail_task
from .times import rfc3339
from .transfer import Conversation, Transfer
from .transports.factory import connection_of, make_transport
from .transports.transport import Transport


def collection_version() -> str:
    """The version of this collection, from the file that its package carries, or from its source."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    for name, path in (("MANIFEST.json", ("collection_info", "version")), ("galaxy.yml", ("version",))):
        try:
            with open(os.path.join(root, name), encoding="utf-8") as file:
                value = yaml_load(file)
            for key in path:
                value = value[key]
            return str(value)
        except (OSError, KeyError, TypeError):
            continue
    return "unknown"


MEASURED = frozenset(("started", "limited_by", "limits", "stages", "timeline"))
"""The fields of a result that ``TransferAction.findings`` makes."""

STATUS = {"type": "str"}
"""The field ``status``, which the modules of both transfers return for ``TransferAction.findings`` and do not document."""


OVERRIDES = "FLEET_IMAGING_TEST_TIMEOUTS"
"""The environment variable by which tests shorten waits: a JSON object of fields of ``Timeouts``. Each transfer of such a run warns of it."""


def overridden(text: str, link_timeout: float) -> Timeouts:
    """The timeouts of a test; raises ImagingError when they are none, or contradict each other."""
    try:
        timeouts = Timeouts.from_values({**json.loads(text), "link_timeout": link_timeout})
    except (TypeError, ValueError) as error:
        raise ImagingError(f"{OVERRIDES} is no JSON object of timeouts: {error}. Unset it.") from error
    contradictions = timeouts.contradictions()
    if contradictions:
        raise ImagingError(f"{OVERRIDES} contradicts itself. {' '.join(contradictions)}")
    return timeouts


def check_bounds(arguments: dict[str, Any]) -> None:
    """Raise ImagingError when a number can't be, before anything is started."""
    for name, (least, most) in BOUNDS.items():
        value = arguments.get(name)
        if value is not None and not least <= value <= most:
            raise ImagingError(f"{name} is {value}, and must be from {least} to {most}. Set imaging_{name}.")
    if "compression_level" in arguments:
        parse_level(arguments["compression_level"])


class TransferAction(ActionBase):
    """Checks arguments, runs one transfer with the module of the same name, and turns errors into results."""

    _supports_check_mode = True
    _supports_async = False
    ARGUMENTS: ClassVar[dict[str, Any]] = {}
    ADDED: ClassVar[frozenset[str]] = frozenset()
    """The documented fields of the result that this end adds."""
    UNDOCUMENTED: ClassVar[dict[str, Any]] = {}
    """What the module says beside the documented fields, in the form of RETURN."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Entry point, called by Ansible in a worker process of this host's own."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            _validation, arguments = self.validate_argument_spec(argument_spec=self.ARGUMENTS)
            check_bounds(arguments)
            result.update(printable_all(self.transfer(arguments, task_vars or {})))
        except ImagingError as error:
            fail_task(str(error), {**self.facts_of_failure(), **error.facts})
        except AnsibleConnectionFailure:
            raise
        except Exception as error:
            result = {"codes": [], **self.facts_of_failure()}
            raise AnsibleActionFail(str(error) or type(error).__name__, result=result) from error
        if result.get("failed"):
            fail_task(result.pop("msg"), {**self.facts_of_failure(), **result})
        return result

    def facts_of_failure(self) -> dict[str, Any]:
        """Fields of a failed result, as they stand, unless the error or the laptop says otherwise."""
        return {}

    def believed(self, answer: dict[str, Any]) -> dict[str, Any]:
        """What of the module's answer is believed; raises ImagingError."""
        name = self._task.action.rpartition(".")[2]
        fields = {**documented_fields(name), **self.UNDOCUMENTED}
        if not self._task.check_mode:
            fields = required_outside_check_mode(fields)
        return checked_answer(answer, fields, name, self.ADDED)

    running: Transfer | None = None
    """The transfer since its beginning."""

    @abstractmethod
    def transfer(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Do it; raises ImagingError."""

    def ticket(
        self, arguments: dict[str, Any], task_vars: dict[str, Any], root_digest: str = "", relay: bool = False
    ) -> Ticket:
        """Make the ticket of a new transfer, with a new key and certificate for the laptop."""
        host = str(task_vars["inventory_hostname"])
        return Ticket(
            run_id=secrets.token_hex(8),
            credentials=run_authority().issue(Name(LAPTOP, host)),
            host=host,
            created=rfc3339(),
            collection_version=collection_version(),
            root_digest=root_digest,
            relay=relay,
            timeouts=self._timeouts(float(arguments["link_timeout"])),
        )

    def _timeouts(self, link_timeout: float) -> Timeouts:
        """Return how long both ends of a transfer wait."""
        overrides = os.environ.get(OVERRIDES)
        if not overrides:
            return Timeouts(link_timeout=link_timeout)
        self._display.warning(
            f"This run does not wait as it should: {OVERRIDES} is set, which is for tests ({overrides})."
        )
        return overridden(overrides, link_timeout)

    def address(self) -> str:
        """Where the laptop is reached: the address that Ansible's own connection uses."""
        if self._connection.transport == "local":
            return "127.0.0.1"
        for option in ("host", "remote_addr"):
            try:
                return str(self._connection.get_option(option))
            except KeyError:
                continue
        return str(self._play_context.remote_addr)

    def run_transfer(
        self,
        arguments: dict[str, Any],
        ticket: Ticket,
        task_vars: dict[str, Any],
        conversation: Conversation,
        progress: Callable[[], int],
        meter: Meter | None = None,
    ) -> tuple[dict[str, Any], Transfer]:
        """Start the module, hold the conversation, return the module's result. Whatever happens, nothing of it is left behind.

        ``progress`` grows while it gets on. How it does is told meanwhile, if there is a ``meter`` that hears it.
        """
        module = DetachedModule(self, task_vars, ticket.run_id, ticket.timeouts)
        transfer = self.running = self.make_transfer(module, arguments, ticket, progress)
        with interruptible(), self.telling(ticket.host, transfer, meter):
            try:
                module.start(self._task.action, {**arguments, "ticket": module.hand_over(ticket)})
                return self.believed(transfer.converse(conversation)), transfer
            except BaseException:
                module.stop()
                raise
            finally:
                module.clean_up()

    def make_transfer(
        self, module: DetachedModule, arguments: dict[str, Any], ticket: Ticket, progress: Callable[[], int]
    ) -> Transfer:
        """Return what connects to a module."""
        timeouts = ticket.timeouts
        transport = make_transport(arguments, self._connection, self.address(), timeouts)
        laptop = Name(LAPTOP, ticket.host)
        return Transfer(module, transport, run_authority().controller, laptop, timeouts, progress)

    def transport_to(
        self, host: str, address: str, way: Mapping[str, Any], task_vars: Mapping[str, Any], timeouts: Timeouts
    ) -> Transport:
        """Return the controller's way to another laptop of the run; raises ImagingError. ``way`` has the arguments of the transport."""
        return make_transport(way, connection_of(host, self, task_vars), address, timeouts)

    def telling(self, host: str, transfer: Transfer, meter: Meter | None) -> contextlib.AbstractContextManager[object]:
        """Return what tells of the progress of a transfer meanwhile, if there is a meter that hears of it."""
        if meter is None:
            return contextlib.nullcontext()
        return Publisher(lambda: progress_event(host, transfer, meter), self._display.display)

    def sharing(self, task_vars: dict[str, Any]) -> int:
        """Return how many laptops share the controller's network."""
        return len(task_vars.get("ansible_play_batch") or [""])

    def findings(
        self, result: dict[str, Any], arguments: dict[str, Any], task_vars: dict[str, Any], meter: Meter
    ) -> dict[str, Any]:
        """What the measurements of a transfer came to, for its result."""
        meter.close(result.pop("status"))
        context = AdviceContext(
            automatic=arguments.get("compression_level") == AUTO,
            laptops=self.sharing(task_vars),
            over_ssh=arguments["transport"] == SSH,
        )
        return {
            "started": meter.started,
            "limited_by": meter.verdict(context),
            "limits": meter.limits(),
            "stages": meter.stages(),
            "timeline": [[round(seconds, 2), done, phase] for seconds, done, phase in meter.timeline],
        }


def progress_event(host: str, transfer: Transfer, meter: Meter) -> ProgressEvent:
    """Return the progress of a transfer for those who watch."""
    condition, reading = transfer.condition, meter.reading(host)
    if reading is None:
        return ProgressEvent(host=host, state=condition or "looking at the disk")
    if not condition:
        return reading
    done = reading.total if transfer.over else reading.done
    return ProgressEvent(
        host=host, state=condition, done=done, total=reading.total, whole=reading.whole, detail=transfer.waited
    )
