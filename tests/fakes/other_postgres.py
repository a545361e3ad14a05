"""A PostgreSQL server of another version than the embedded one, as users may have installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from chordwise.embedded import postgres
from chordwise.embedded.postgres import EmbeddedPostgres, named_user


class OtherPostgres(EmbeddedPostgres):
    """Started like the embedded server, without options that older versions lack."""

    def __init__(self, data: Path, sockets: Path, programs: Path) -> None:
        super().__init__(data, sockets)
        self._programs = programs
        postgres._SETTINGS.pop("io_method", None)

    def _run_initdb(self, folder: Path) -> None:
        options = [
            f"--pgdata={folder}",
            f"--username={postgres.USER}",
            f"--pwfile={folder.with_name('password')}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
        ]
        program = str(self._programs / "initdb")
        command = named_user().command([program, *options], self._seen(folder.parent))
        subprocess.run(command, check=True, capture_output=True)
