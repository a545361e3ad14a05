"""The rows of the benchmark; each function measures one of them."""

from __future__ import annotations

import argparse
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks import peers, provider, stack
from benchmarks.documents import FIELDS, text, write_documents, write_forms, write_table
from benchmarks.machine import heading, run
from benchmarks.provider import Provider
from benchmarks.report import Bound, Report, Run
from benchmarks.stack import MeasurementError, Stack

_BUILT_IN = 'model = "extractive"\n'
_PEERS = Path(peers.__file__)
_STABILITY_SECONDS = 0.1
_FIRST_RESULTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The shared options of the rows, and their report; `timeout` is in seconds."""

    scale: float
    timeout: float
    report: Report
    peers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, options: argparse.Namespace, peers: Sequence[tuple[str, str]] = ()) -> Bench:
        """Return the options of a command, with an empty report.

        SIGTERM exits through the `finally` clauses, which stop what was started.
        """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        report = Report(heading=heading(options.scale))
        timeout = 60 * options.minutes
        return cls(scale=options.scale, timeout=timeout, report=report, peers=dict(peers))

    def scaled(self, count: int) -> int:
        """Return `count` multiplied by the scale, at least 1."""
        return max(1, round(count * self.scale))

    def record(self, row: str, bound: Bound, value: float, note: str = "") -> None:
        """Add a measured value to the report, and print it to standard error."""
        print(f"{bound.what}: {value:.3g} {bound.unit}", file=sys.stderr, flush=True)
        self.report.measurements.append((row, bound, value, note))


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of `Bench.of`."""
    made = argparse.ArgumentParser(prog=f"python -m {name}", description=description)
    made.add_argument("--scale", type=float, default=1.0, help="the share of the work; default 1")
    made.add_argument(
        "--minutes", type=float, default=30.0, help="time limit of a command; default 30"
    )
    return made


def tell(words: str) -> None:
    """Print words with the time to standard error."""
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)


def _analyze(bench: Bench, stack_: Stack, server: Provider, row: str, in_flight: int) -> Run:
    """Submit the folder `docs`, wait for its results, and add the measured calls to the report."""
    server.reset()
    before = stack_.usage()
    name, submitted = stack_.submit("docs")
    waited = stack_.command("wait", name, "--json")
    after, counts = stack_.usage(), server.counts()
    measured = Run(
        row=row,
        name="Chordwise",
        calls=counts.calls,
        seconds=counts.seconds,
        share=counts.calls * server.latency / in_flight / counts.seconds,
        peak=counts.peak,
        cpu={**after.since(before), "command": submitted.cpu + waited.cpu},
        worker_megabytes=after.worker_megabytes,
    )
    bench.report.runs.append(measured)
    return measured


def _compare(bench: Bench, ours: Run, server: Provider, in_flight: int) -> tuple[float, str]:
    """Run the raw clients with as many calls; return the share relative to httpx, and a note."""
    raw = [sys.executable, "-m", "benchmarks.raw"]
    shares = {}
    for client in ("httpx", "aiohttp"):
        other = _run_other(bench, [*raw, client], ours, server, in_flight)
        shares[client] = ours.share / other.share
    return shares["httpx"], f"{shares['aiohttp']:.2f} of raw aiohttp"


def _run_other(
    bench: Bench, command: list[str], like: Run, server: Provider, in_flight: int
) -> Run:
    server.reset()
    done = run([*command, server.url, str(like.calls), str(in_flight)], timeout=bench.timeout)
    counts = server.counts()
    if done.code or counts.calls < like.calls:
        raise MeasurementError(f"{command[-1]} made {counts.calls} calls: {done.errors[-300:]}")
    share = counts.calls * server.latency / in_flight / counts.seconds
    other = Run(
        row=like.row,
        name=command[-1],
        calls=counts.calls,
        seconds=counts.seconds,
        share=share,
        peak=counts.peak,
        cpu={"command": done.cpu},
    )
    bench.report.runs.append(other)
    return other


def _run_peers(bench: Bench, ours: Run, latency: float, in_flight: int) -> None:
    for name in peers.NAMES:
        if name not in bench.peers:
            bench.report.notes.append(f"{ours.row}: {name} was not measured: no --peer {name}=…")
            continue
        with provider.running(latency, peers.CONTENT[name]) as server:
            command = [bench.peers[name], str(_PEERS), name]
            try:
                _run_other(bench, command, ours, server, in_flight)
            except (MeasurementError, OSError, TimeoutError) as error:
                bench.report.notes.append(f"{ours.row}: {name} was not measured: {error}")


def _share(bench: Bench, in_flight: int, latency: float, must: float, goal: float) -> Run:
    row = f"share-{in_flight}"
    with provider.running(latency) as server:
        settings = stack.provider_settings(server, in_flight)
        with stack.running(settings, timeout=bench.timeout) as stack_:
            documents = max(2, bench.scaled(50 * in_flight) // 16)
            write_documents(stack_.folder / "docs", documents, 16)
            ours = _analyze(bench, stack_, server, row, in_flight)
        share, note = _compare(bench, ours, server, in_flight)
    what = f"documents of 16 chunks, {in_flight} in flight, latency {latency:g} s: share of httpx"
    bench.record(row, Bound(what, must, goal, at_least=True), share, note)
    return ours


def share_64(bench: Bench) -> None:
    """Measure documents of 16 chunks with 64 calls in flight, beside raw clients and peers."""
    ours = _share(bench, 64, 0.5, 0.93, 0.98)
    _run_peers(bench, ours, 0.5, 64)


def share_256(bench: Bench) -> None:
    """Measure 256 calls in flight; also CPU per call and the memory of the workers."""
    ours = _share(bench, 256, 0.5, 0.70, 0.95)
    bench.record(ours.row, Bound("CPU per call", 5.5, 2.5, "ms"), ours.cpu_per_call)
    memory = Bound("worker memory, all processes, peak", 350, 250, "MB")
    bench.record(ours.row, memory, ours.worker_megabytes)
    _run_peers(bench, ours, 0.5, 256)


def share_1000(bench: Bench) -> None:
    """Measure 1,000 calls in flight with a provider latency of 2 seconds."""
    _share(bench, 1000, 2.0, 0.60, 0.90)


def statements(bench: Bench) -> None:
    """Measure statements and transactions per call, counted by PostgreSQL, with 64 in flight."""
    row = "statements"
    with (
        provider.running(0.5) as server,
        stack.running(stack.provider_settings(server, 64), timeout=bench.timeout) as stack_,
    ):
        write_documents(stack_.folder / "docs", max(20, bench.scaled(60)), 16)
        stack_.log_statements()
        # The wait before each reading also causes transactions, which are measured first.
        first, begun = stack_.transactions(), stack_.transactions()
        waiting, logged = begun - first, stack_.statements()
        ours = _analyze(bench, stack_, server, row, 64)
        statements_made = stack_.statements() - logged
        transactions = stack_.transactions() - begun - waiting
    note = "including BEGIN and COMMIT"
    bench.record(row, Bound("statements per call", 3, 1), statements_made / ours.calls, note)
    bench.record(row, Bound("transactions per call", 0.5, 0.1), transactions / ours.calls)


def small_64(bench: Bench) -> None:
    """Measure documents of one chunk with 64 calls in flight, including their intake."""
    row = "small-64"
    with provider.running(0.5) as server:
        settings = stack.provider_settings(server, 64)
        with stack.running(settings, timeout=bench.timeout) as stack_:
            write_documents(stack_.folder / "docs", bench.scaled(1000), 1)
            ours = _analyze(bench, stack_, server, row, 64)
        share, note = _compare(bench, ours, server, 64)
    what = "documents of one chunk, 64 in flight: share of httpx"
    bench.record(row, Bound(what, 0.80, 0.95, at_least=True), share, note)
    cpu = Bound("CPU per document of one chunk, including intake", 8, 4, "ms")
    bench.record(row, cpu, ours.cpu_per_call)


def long_document(bench: Bench) -> None:
    """Compare CPU per call of one document of 10,000 chunks with that of documents of 100."""
    row, costs = "long", []
    chunks = max(200, bench.scaled(10_000))
    for count, size in ((chunks // 100, 100), (1, chunks)):
        with (
            provider.running(0.5) as server,
            stack.running(stack.provider_settings(server, 64), timeout=bench.timeout) as stack_,
        ):
            write_documents(stack_.folder / "docs", count, size)
            costs.append(_analyze(bench, stack_, server, row, 64).cpu_per_call)
    what = f"CPU per call, a document of {chunks:,} chunks relative to those of 100"
    bench.record(row, Bound(what, 1.15, 1.02, "times"), costs[1] / costs[0])


def _taken_per_second(bench: Bench, prepare: Callable[[Path], None], *arguments: str) -> float:
    """Return the jobs that `submit` creates per second, with at most eight calls a second."""
    with (
        provider.running(2.0) as server,
        stack.running(stack.provider_settings(server, 16), timeout=bench.timeout) as stack_,
    ):
        prepare(stack_.folder)
        before = stack_.number("SELECT count(*) FROM jobs")
        name, submitted = stack_.submit(*arguments)
        taken = stack_.number("SELECT count(*) FROM jobs") - before
        stack_.command("cancel", name)
    return taken / submitted.wall


def intake_files(bench: Bench) -> None:
    """Measure the intake of text files of 2 KB, in files per second."""
    count = bench.scaled(10_000)
    bound = Bound(f"intake of {count:,} files of 2 KB", 250, 1000, "per second", at_least=True)
    speed = _taken_per_second(
        bench, lambda folder: write_documents(folder / "docs", count, 1), "docs"
    )
    bench.record("intake-files", bound, speed)


def intake_csv(bench: Bench) -> None:
    """Measure the intake of a CSV file, in rows per second."""
    count = bench.scaled(10_000)
    bound = Bound(f"intake of {count:,} rows of a CSV", 1500, 5000, "per second", at_least=True)
    table = ("rows.csv", "--text-column", "text", "--id-column", "id")
    speed = _taken_per_second(bench, lambda folder: write_table(folder / "rows.csv", count), *table)
    bench.record("intake-csv", bound, speed)


def csv_sentiment(bench: Bench) -> None:
    """Measure the time from `submit` to the last result of a CSV file, with the built-in model."""
    count = bench.scaled(3000)
    with stack.running(_BUILT_IN, timeout=bench.timeout) as stack_:
        write_table(stack_.folder / "rows.csv", count)
        begun = time.monotonic()
        options = ("--type", "sentiment", "--text-column", "text", "--id-column", "id")
        name, _ = stack_.submit("rows.csv", *options)
        stack_.command("wait", name, "--json", codes=(0, 3))
        seconds = time.monotonic() - begun
    what = "3,000 rows of a CSV, sentiment by the built-in model"
    note = "" if count == 3000 else f"extrapolated from {seconds:.1f} s for {count:,}"
    bench.record("csv-sentiment", Bound(what, 25, 10, "s"), seconds * 3000 / count, note)


def _inbox_settings(seconds: float) -> str:
    return f'{_BUILT_IN}[inbox]\nfolders = ["inbox"]\nstability_seconds = {seconds}\n'


def _wait(condition: Callable[[], bool], seconds: float, pause: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise MeasurementError(f"It was not done within {seconds:.0f} s.")
        time.sleep(pause)


def inbox(bench: Bench) -> None:
    """Measure the time until all files in an inbox are delivered."""
    count = bench.scaled(10_000)
    with stack.running(_inbox_settings(1.0), timeout=bench.timeout) as stack_:
        write_documents(stack_.folder / "docs", count, 1)
        begun = time.monotonic()
        for file in (stack_.folder / "docs").iterdir():
            file.rename(stack_.folder / "inbox" / file.name)
        done = stack_.folder / "done"
        _wait(lambda: len(list(done.glob("*.txt"))) >= count, bench.timeout, 0.5)
        seconds = time.monotonic() - begun
    note = "" if count == 10_000 else f"extrapolated from {seconds:.1f} s for {count:,}"
    bound = Bound("10,000 files of an inbox delivered, built-in model", 240, 60, "s")
    bench.record("inbox", bound, seconds * 10_000 / count, note)


def first_result(bench: Bench) -> None:
    """Measure the time from a complete file in an inbox to its result, on a warm stack."""
    with stack.running(_inbox_settings(_STABILITY_SECONDS), timeout=bench.timeout) as stack_:
        waits = [_seconds_to_result(stack_, number) for number in range(_FIRST_RESULTS)]
    note = (
        f"median of {len(waits)}, longest {1000 * max(waits):.0f} ms, excluding the stability delay"
    )
    bound = Bound("first result after a file is complete, warm", 500, 200, "ms")
    bench.record("first-result", bound, 1000 * statistics.median(waits), note)


def _seconds_to_result(stack_: Stack, number: int) -> float:
    """Write file `number`, from 0, to the inbox; return the seconds until its result."""
    hidden = stack_.folder / "inbox" / f".f{number}.txt"
    hidden.write_text(text(90_000 + number, 1500), "utf-8")
    with stack_.database() as connection:

        def has_result() -> bool:
            query = "SELECT count(*) FROM jobs WHERE status = 'succeeded'"
            row = connection.execute(query).fetchone()
            return bool(row and row[0] > number + 1)

        hidden.rename(hidden.with_name(f"f{number}.txt"))
        begun = time.monotonic()
        _wait(has_result, 60, 0.005)
        return time.monotonic() - begun - _STABILITY_SECONDS


@contextmanager
def _forms(bench: Bench) -> Iterator[Stack]:
    """Run a stack with the table `answers.forms` of 2,000 documents."""
    with stack.running(_BUILT_IN, timeout=bench.timeout) as stack_:
        write_forms(stack_.folder / "docs", bench.scaled(2000))
        question = ("--type", "extraction", "--items", ", ".join(FIELDS), "--save-as", "forms")
        name, _ = stack_.submit("docs", *question)
        stack_.command("wait", name, "--json")
        yield stack_


def table_page(bench: Bench) -> None:
    """Measure the page of a table of answers in Chromium, until its totals are shown."""
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if program is None:
        raise MeasurementError("No Chromium is installed.")
    with _forms(bench) as stack_, stack_.pages() as link, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(link)
        waits = [_milliseconds(page, f"{link.partition('/?')[0]}/tables/forms") for _ in range(6)]
        browser.close()
    first, rendered = (statistics.median(times) for times in zip(*waits[1:], strict=True))
    what = f"page of {bench.scaled(2000):,} documents and {len(FIELDS)} fields"
    bench.record("table-page", Bound(f"{what}: first byte", 1000, 200, "ms"), first)
    bench.record("table-page", Bound(f"{what}: rendered", 1000, 500, "ms"), rendered)


_RENDERED = """new Promise(resolve => {
    const look = () => document.querySelector("#sums td")
        ? resolve(performance.now()) : requestAnimationFrame(look);
    look();
})"""


def _milliseconds(page: Page, address: str) -> tuple[float, float]:
    """Return the times until the first byte and until the totals of a table are shown."""
    page.goto(address, wait_until="commit")
    rendered = float(page.evaluate(_RENDERED))
    first = page.evaluate("performance.getEntriesByType('navigation')[0].responseStart")
    return float(first), rendered


def workbook(bench: Bench) -> None:
    """Measure the export of a table of answers as a workbook."""
    count = bench.scaled(2000)
    with _forms(bench) as stack_:
        before = stack_.usage()
        done = stack_.command("export", "answers.forms", "--output", "forms.xlsx")
        server = stack_.usage().since(before)["postgres"]
    bound = Bound(f"workbook of {count:,} documents and {len(FIELDS)} fields", 5, 2.5, "s")
    note = f"CPU of the command {done.cpu:.1f} s, of PostgreSQL {server:.1f} s"
    bench.record("workbook", bound, done.wall, note)


def commands(bench: Bench) -> None:
    """Measure the CPU of short commands beside a running stack."""
    with stack.running(_BUILT_IN, timeout=bench.timeout) as stack_:
        for arguments, must, goal in (
            (("--help",), 200, 100),
            (("version",), 200, 100),
            (("runs",), 450, 300),
            (("results",), 450, 300),
            (("sql", "SELECT 1"), 450, 300),
        ):
            cpu = min(stack_.command(*arguments).cpu for _ in range(3))
            bound = Bound(f"`chordwise {arguments[0]}`, CPU", must, goal, "ms")
            bench.record("commands", bound, 1000 * cpu, "minimum of three")


def idle(bench: Bench) -> None:
    """Measure the CPU of an idle stack."""
    seconds = max(20.0, 60 * bench.scale)
    with stack.running(_BUILT_IN, timeout=bench.timeout) as stack_:
        time.sleep(10)
        before = stack_.usage()
        time.sleep(seconds)
        spent = stack_.usage().since(before)
    note = ", ".join(f"{name} {100 * used / seconds:.1f}" for name, used in spent.items())
    bound = Bound("CPU of an idle stack", 2, 0.5, "% of a core")
    bench.record("idle", bound, 100 * sum(spent.values()) / seconds, note)


ROWS: dict[str, Callable[[Bench], None]] = {
    "commands": commands,
    "idle": idle,
    "first-result": first_result,
    "statements": statements,
    "share-64": share_64,
    "small-64": small_64,
    "share-256": share_256,
    "intake-files": intake_files,
    "intake-csv": intake_csv,
    "csv-sentiment": csv_sentiment,
    "inbox": inbox,
    "table-page": table_page,
    "workbook": workbook,
    "long": long_document,
    "share-1000": share_1000,
}
