# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of ``bench.fleet``: all workers in one, and one for each laptop. Both read a plan from their arguments or their input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible_collections.fleet.imaging.plugins.module_utils.engine.status import Status
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.run_folder import RunFolder
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.session import Session
from ansible_collections.fleet.imaging.plugins.module_utils.serving.server import serve
from ansible_collections.fleet.imaging.plugins.module_utils.serving.stored import StoredSource
from ansible_collections.fleet.imaging.plugins.module_utils.sources.http_file import HttpLocation
from ansible_collections.fleet.imaging.plugins.module_utils.stream.credentials import LAPTOP, Credentials, Name
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Link
from ansible_collections.fleet.imaging.plugins.module_utils.stream.relaying import Loss
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import Timeouts
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.meter import Meter
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.board import Board
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.participant import Address, Participant
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.rules import CONTROLLER, Member
from ansible_collections.fleet.imaging.plugins.plugin_utils.run_authority import Authority
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.folder import FolderStore
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer import Transfer
from ansible_collections.fleet.imaging.plugins.plugin_utils.transports.tcp import Tcp

from ..unit.plugins.plugin_utils.relay.fleet import restore_disk

TIMEOUTS = Timeouts(link_timeout=120.0)
GAP = 0.3
"""Seconds between the starts of two laptops."""

BEGAN = time.monotonic()

SENT = Path("/sys/class/net/eth0/statistics/tx_bytes")


class LaptopProcess:
    """A laptop, as ``Transfer`` sees a module."""

    def __init__(self, namespace: str, plan: dict[str, Any]) -> None:
        command = ["ip", "netns", "exec", namespace, sys.executable, "-m", __spec__.name, "laptop"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(plan) + "\n")
        self.process.stdin.close()
        self._port = 0

    def wait_for_port(self) -> int:
        """Return the port, which is the first line."""
        assert self.process.stdout is not None
        self._port = self._port or int(self.process.stdout.readline())
        return self._port

    def has_ended(self) -> bool:
        """Return whether the process has ended."""
        return self.process.poll() is not None

    def collect(self, _within: float) -> dict[str, Any]:
        """Return the result, which is the last line."""
        assert self.process.stdout is not None
        lines = self.process.stdout.read().splitlines()
        self.process.wait()
        return dict(json.loads(lines[-1])) if lines else {"failed": True}


class WatchedParticipant(Participant):
    """Notes where its laptop was told to take chunks from, and why it left another one."""

    def __init__(self, board: Board, name: str, moves: list[str]) -> None:
        super().__init__(lambda _site: board, lambda text: moves.append(f"{name}: {text}"))
        self._name = name
        self._moves = moves
        self._last = ""

    def _lost(self, link: Link, loss: Loss) -> None:
        self._moves.append(f"{time.monotonic() - BEGAN:.1f} {self._name} lost {loss.host}: {loss.reason}")
        super()._lost(link, loss)

    def _take_from(self, members: list[Member]) -> None:
        super()._take_from(members)
        row = members[self._number]
        upstream = members[row.upstream].name if row.upstream != CONTROLLER else "controller"
        now = f"{upstream}{' for a trial' * row.trial}{', slow' * row.slow}"
        if now != self._last:
            self._last = now
            self._moves.append(f"{time.monotonic() - BEGAN:.1f} {self._name} <- {now}, missing {row.missing >> 20} MiB")


class Worker:
    """The worker of one laptop, and its process."""

    def __init__(self, plan: dict[str, Any], number: int, authority: Authority, folder: Path, moves: list[str]) -> None:
        self.name = f"laptop-{number + 1}"
        self._plan = plan
        self._number = number
        self._authority = authority
        self._folder = folder
        self._moves = moves
        self.seconds: float | None = None
        self.result: dict[str, Any] = {}
        self.done = 0.0
        """The share of the image that the laptop has."""
        image = FolderStore(plan["store"]).open("fleet")
        laptop = {
            "name": self.name,
            "folder": str(folder),
            "size": image.header.geometry.disk_size,
            "root": image.root_digest.hex(),
            "credentials": asdict(authority.issue(Name(LAPTOP, self.name))),
            "servers": plan["servers"],
        }
        self.laptop = LaptopProcess(plan["namespaces"][number], laptop)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        began = time.monotonic()
        try:
            self.result = self._transfer()
        except Exception as error:
            self.result = {"failed": True, "msg": str(error)}
        if not self.result.get("failed"):
            self.seconds = time.monotonic() - began

    def _transfer(self) -> dict[str, Any]:
        image = FolderStore(self._plan["store"]).open("fleet")
        source = StoredSource(image)
        meter = Meter(source.watches, lambda: source.frames_sent, frames=image.stored_bytes)
        laptop, address = Name(LAPTOP, self.name), self._plan["addresses"][self._number]
        ends = Transfer(
            self.laptop,  # type: ignore[arg-type]
            Tcp(address),
            self._authority.controller,
            laptop,
            TIMEOUTS,
            lambda: meter.mark,
        )
        participant = WatchedParticipant(Board(str(self._folder / "board")), self.name, self._moves)

        def conversation(link: Link) -> None:
            participant.attach(link)

            def progress(payload: bytes) -> None:
                meter.update(payload)
                status = Status.unpack(payload)
                self.done = status.data_done / max(1, status.data_total)
                participant.progress(link, status, Address(self.name, address, ends.port))

            serve(link, source, progress)

        try:
            return ends.converse(conversation)
        finally:
            participant.leave()


def run_controller(plan: dict[str, Any]) -> None:
    """Run all workers, and print what came of it."""
    with tempfile.TemporaryDirectory(prefix="fleet-", dir=plan["folder"]) as name:
        moves: list[str] = []
        authority, before = Authority(), int(SENT.read_text())
        workers = [Worker(plan, number, authority, Path(name), moves) for number in range(len(plan["addresses"]))]
        for worker in workers:
            worker.laptop.wait_for_port()
        for worker in workers:
            worker.thread.start()
            time.sleep(GAP)
        fault = plan["fault"]
        if fault is not None and fault["kind"] != "slow":
            _strike(workers[fault["place"]], plan["namespaces"][fault["place"]], fault)
        deadline = time.monotonic() + plan["limit"]
        faulty = [] if fault is None else [workers[place] for place in fault["places"]]
        for worker in workers:
            if worker not in faulty:
                worker.thread.join(max(0.0, deadline - time.monotonic()))
        sent = int(SENT.read_text()) - before
        for worker in faulty if fault is not None and fault["kind"] == "slow" else []:
            worker.thread.join(max(0.0, deadline - time.monotonic()))
        for worker in workers:
            if not worker.laptop.has_ended():
                worker.laptop.process.kill()
        image = FolderStore(plan["store"]).open("fleet")
        found = {
            "seconds": [worker.seconds for worker in workers],
            "images": sent / image.stored_bytes,
            "taken_from": [[each["host"] for each in worker.result.get("taken_from", ())] for worker in workers],
            "moves": moves,
            "warnings": [text for worker in workers for text in worker.result.get("warnings", ())],
            "cpu": [worker.result.get("cpu", 0.0) for worker in workers],
        }
        print(json.dumps(found), flush=True)
        os._exit(0)  # a worker may still try to reach a laptop that is cut off


def _strike(worker: Worker, namespace: str, fault: dict[str, Any]) -> None:
    while worker.done < fault["share"] and worker.thread.is_alive():
        time.sleep(0.05)
    if fault["kind"] == "cut":
        subprocess.run(["ip", "-n", namespace, "link", "set", "eth0", "down"], check=True)
    else:
        worker.laptop.process.send_signal(signal.SIGKILL if fault["kind"] == "kill" else signal.SIGSTOP)


def run_laptop(plan: dict[str, Any]) -> None:
    """Run a laptop's half: print its port, then its result."""
    folder = Path(plan["folder"])
    disk = folder / f"disk-{plan['name']}"
    with disk.open("wb") as file:
        file.truncate(plan["size"])
    own = RunFolder(str(folder / f"run-{plan['name']}"), TIMEOUTS)
    credentials = Credentials(**plan["credentials"])
    session = Session(plan["name"], str(disk), credentials, ("", 0), TIMEOUTS, own, relay=True)
    threading.Thread(target=_tell_port, args=(session,), daemon=True).start()
    try:
        servers = {name: HttpLocation(**location) for name, location in plan["servers"].items()}
        result = restore_disk(session, disk, bytes.fromhex(plan["root"]), servers=servers)
        kept = {name: result[name] for name in ("taken_from", "passed_on", "verified", "warnings")}
    except Exception as error:
        kept = {"failed": True, "msg": str(error)}
    print(json.dumps(kept | {"cpu": time.process_time()}), flush=True)


def _tell_port(session: Session) -> None:
    while not hasattr(session, "_listener"):
        time.sleep(0.01)
    print(session._listener.port, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "controller":
        run_controller(json.loads(sys.argv[2]))
    else:
        run_laptop(json.loads(sys.stdin.readline()))
