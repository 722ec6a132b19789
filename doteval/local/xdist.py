"""Evaluations under pytest-xdist: its workers run them, its controller names the experiment and reports.

Only numbers and texts travel between them, since xdist can carry nothing else.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

from doteval.core import clocks
from doteval.core.experiments import ephemeral_name
from doteval.core.stop_signals import Stopped, StopSignals
from doteval.core.wording import counted

_KEY = "doteval"
# How long the workers of a command that was stopped may take to store what they have. They also compute metrics, for
# which they load libraries: with ten busy processes on two cores that took 17 s.
_STORE_SECONDS = 60.0
# pytest itself handles SIGINT; it dies of these.
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class XdistWorkers:
    """The workers of this controller, which it stops in order when a signal stops the controller.

    xdist itself would be killed by SIGTERM, and its workers would go on for seconds, until they notice that and are cut
    off. Ctrl-C reaches the workers without the controller.

    signals: those that stop the controller and its workers, once `stop_in_order` was called.
    run_evaluations: whether some worker has an evaluation to run.
    """

    def __init__(self) -> None:
        self.signals = StopSignals(self._stop, numbers=_SIGNALS)
        self._nodes: list[Any] = []
        self.run_evaluations = False

    def add(self, node: Any) -> None:
        """Add a worker that xdist is about to start, as its `WorkerController`."""
        self._nodes.append(node)

    def stop_in_order(self) -> None:
        """Take the signals: some worker has an evaluation to run."""
        if not self.run_evaluations:
            self.run_evaluations = True
            self.signals.install()

    def wait(self, on_message: Callable[[str], None]) -> None:
        """After a signal has stopped this process: wait until the workers have stored what they have, and ended.

        xdist would give them 5 s and then interrupt them. Another signal kills them.

        on_message: called with a line for the user if some take too long
        """
        if self.signals.first is None:
            return
        deadline = clocks.monotonic() + _STORE_SECONDS
        try:
            late = [node for node in self._on_this_machine() if not _ends(node, deadline - clocks.monotonic())]
        except KeyboardInterrupt:
            late = self._on_this_machine()
            for node in late:
                os.kill(_pid(node), signal.SIGKILL)
        else:
            if late:
                waited = f"{_STORE_SECONDS:g} s"
                on_message(f"{counted(len(late), 'xdist worker')} did not end within {waited}; xdist ends them now")

    def take_over(self, reports: list[Any], applied_thresholds: set[Any]) -> None:
        """Add the reports of workers that xdist did not announce, since it does not listen once it is interrupted."""
        for node in self._nodes:
            take_over(getattr(node, "workeroutput", {}), reports, applied_thresholds)

    def _on_this_machine(self) -> list[Any]:
        # One that is being started has no channel yet.
        started = [node for node in self._nodes if node.gateway.spec.popen and hasattr(node, "channel")]
        return [node for node in started if not node.channel.isclosed()]

    def _stop(self) -> None:
        number = self.signals.first
        assert number is not None
        for node in self._on_this_machine():
            # xdist reaps its workers later, so this pid cannot be another process's.
            os.kill(_pid(node), number)
        raise Stopped(number)


def _pid(node: Any) -> int:
    # xdist has asked for it before it started the worker, so this sends nothing.
    return int(node.gateway._rinfo().pid)


def _ends(node: Any, seconds: float) -> bool:
    """Wait until a worker has ended, also by an error or a crash, which are xdist's to report."""
    channel = node.channel
    try:
        channel.waitclose(max(0.0, seconds))
    except channel.TimeoutError:
        return False
    except (channel.RemoteError, EOFError):
        pass
    return True


def stop_signals(config: pytest.Config) -> StopSignals:
    """The signals that stop a process which runs evaluations, each one anew; but only the first one in a worker.

    One signal may reach a worker twice, as from a closed terminal and from the controller. If the user sends another,
    the controller kills its workers.
    """

    def stop() -> None:
        number = signals.first
        assert number is not None
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    signals = StopSignals(stop if hasattr(config, "workerinput") else None, numbers=_SIGNALS)
    return signals


def give_name(config: pytest.Config, workerinput: dict[str, Any]) -> None:
    """In the controller: give all workers one experiment name, if the user gave none."""
    if config.getoption("experiment") is None:
        name = config.stash.setdefault(_name_key, ephemeral_name())
        workerinput[_KEY] = name


def name_of_all(config: pytest.Config) -> str:
    """In the controller: the experiment name of all workers, given by the user or by `give_name`."""
    return config.getoption("experiment") or config.stash[_name_key]


def given_name(config: pytest.Config) -> str | None:
    """In a worker: the experiment name from the controller. None elsewhere."""
    name = getattr(config, "workerinput", {}).get(_KEY)
    return name if isinstance(name, str) else None


def command_of(config: pytest.Config) -> list[str]:
    """The arguments of the user's command: in a worker those of the controller."""
    given = getattr(config, "workerinput", {}).get("mainargv")
    return list(given) if isinstance(given, list) else list(sys.argv)


def hand_over(config: pytest.Config, experiment: Any) -> None:
    """In a worker: send the reports of `experiment`, a `LocalExperiment`, to the controller. Elsewhere: do nothing."""
    output = getattr(config, "workeroutput", None)
    if output is not None:
        output[_KEY] = {
            "reports": [[each.raw_url, each.report.evaluation.uid, each.report.resumed] for each in experiment.reports],
            "thresholds": [[each.target, each.minimum] for each in experiment.applied_thresholds],
        }


def take_over(workeroutput: dict[str, Any], reports: list[Any], applied_thresholds: set[Any]) -> None:
    """In the controller: add the reports from a worker, as `StoredReport`s, and the thresholds that applied."""
    # Taken out, since xdist announces the end of an interrupted worker twice.
    handed = workeroutput.pop(_KEY, None)
    if not handed:
        return
    from doteval.analysis.thresholds import Threshold
    from doteval.local.evaluation import report_on
    from doteval.local.session import StoredReport
    from doteval.store import Store

    for raw_url, uid, resumed in handed["reports"]:
        with Store.open(raw_url, create=False) as store:
            report = report_on(store, store.evaluations.by_uid(uid), resumed=resumed)
            reports.append(StoredReport(report, store.url, raw_url))
    applied_thresholds.update(Threshold(target, minimum) for target, minimum in handed["thresholds"])


_name_key = pytest.StashKey[str]()
