"""`chordwise analyze`: documents in, answers out."""

from __future__ import annotations

from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.cli.request import Request
from chordwise.cli.submit import begin
from chordwise.errors import ExitCode


def analyze(invocation: Invocation, request: Request, *, as_json: AsJson = False) -> ExitCode:
    """Take documents in, analyze them, and show the answers.

    chordwise analyze reports/ letter.pdf

    chordwise analyze "mail/*.eml" -t classification --labels invoice,complaint,other

    chordwise analyze contract.docx -t extraction --instructions "parties, term, penalty"

    cat notes.txt | chordwise analyze - -t summary -t sentiment --json

    Ctrl-C detaches: the work goes on, and `chordwise wait RUN` comes back to it.
    While files are taken in it interrupts: `chordwise resume RUN` takes in the rest.
    """
    return begin(invocation, request, waits=not request.no_wait, as_json=as_json)
