"""Shows the report of a sweep in a browser of this machine, and refreshes it as records arrive.

The server listens on the loopback interface only and gives one page. Web pages of other sites
cannot read it: requests that name another host are refused.
"""

import errno
import hashlib
import http.server
import pathlib
import sys
import threading
import time
from typing import Self

from absl import flags

from noisegen import reports
from noisegen._errors import one_line
from noisegen.sweeps import Sweep

from . import cli

PORT = 8000
_HOST = "127.0.0.1"
_LOCAL_NAMES = (_HOST, "localhost")
_POLL_SECONDS = 2.0  # between two looks at the records, and between two requests of the page

# Asks whether the page is still the newest, and else loads it again. A reader who has a list of
# runs open is not disturbed.
_RELOAD = """<script>
setInterval(async () => {
  const answer = await fetch("/", {method: "HEAD"}).catch(() => null);  // the server has ended
  const isOld = answer && answer.headers.get("ETag") !== '%s';
  if (isOld && !document.body.classList.contains("has-panel")) location.reload();
}, %d);
</script>
</body>"""


class PortParser(flags.ArgumentParser):
    """Reads a port; a flag without a value means the usual one."""

    syntactic_help = "a port, 0 to 65535"

    def parse(self, argument: str | int) -> int | None:
        if argument in ("true", "false"):
            return PORT if argument == "true" else None
        if not str(argument).isdigit() or int(argument) > 65535:
            raise ValueError(f"{argument} is no port: give a number from 0 to 65535")
        return int(argument)


class Server:
    """Serves one page at http://127.0.0.1:PORT/ from a thread of its own.

    Args:
      port: The port; 0 takes any free one.

    Attributes:
      url: Address of the page.

    Raises:
      UsageError: If the port is taken or reserved.
    """

    def __init__(self, port: int):
        try:
            self._server = http.server.ThreadingHTTPServer((_HOST, port), _Handler)
        except OSError as error:
            if error.errno == errno.EACCES:
                raise cli.UsageError(
                    f"--serve={port}: this port is not yours to use; give one from 1024 on."
                ) from error
            if error.errno != errno.EADDRINUSE:
                raise
            raise cli.UsageError(
                f"--serve={port}: the port is taken; give another one, or --serve=0 for a free one."
            ) from error
        self._server.page = b""
        poll = {"poll_interval": 0.05}  # seconds until it ends when asked to
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs=poll, daemon=True)
        self.url = f"http://{_HOST}:{self._server.server_port}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    def show(self, page: pathlib.Path) -> None:
        """Gives the content of a file from now on."""
        self._server.page = page.read_bytes()

    def follow(self, sweep: Sweep) -> None:
        """Shows the report of a sweep, written again when records arrive, until Ctrl-C."""
        self.show(sweep.workdir / "report.html")
        print(f"Open {self.url} in a browser of this machine. Ctrl-C ends it.", flush=True)
        seen = _sizes(sweep)
        try:
            while True:
                time.sleep(_POLL_SECONDS)
                sizes = _sizes(sweep)
                if sizes != seen:
                    seen = sizes
                    self._refresh(sweep)
        except KeyboardInterrupt:
            print(file=sys.stderr)  # after the terminal's ^C

    def _refresh(self, sweep):
        """Writes the report again; a failure is reported and leaves the page as it was."""
        try:
            self.show(reports.write_report(sweep))
        except Exception as error:  # as in `report.write_at_end`
            print(f"warning: the page stays as it was: {one_line(error)}", file=sys.stderr)


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers requests for the page."""

    def do_GET(self) -> None:
        """Sends the page."""
        if self._is_allowed():
            self._send_page(self.server.page)

    def do_HEAD(self) -> None:
        """Sends the headers, whose ETag tells one state of the page from another."""
        if self._is_allowed():
            self._send_page(self.server.page, only_headers=True)

    def _is_allowed(self):
        """Returns whether the request is for the page and from this machine; else refuses it."""
        # Another site may make its name point to this machine, and its pages could then read ours.
        host = self.headers.get("Host", "").partition(":")[0]
        if host not in _LOCAL_NAMES:
            self.send_error(403, "Only for this machine")
        elif self.path.partition("?")[0] != "/":
            self.send_error(404)
        else:
            return True
        return False

    def _send_page(self, page, only_headers=False):
        tag = f'"{hashlib.sha256(page).hexdigest()[:16]}"'
        reload = (_RELOAD % (tag, 1000 * _POLL_SECONDS)).encode()
        body = reload.join(page.rsplit(b"</body>", 1))
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("ETag", tag)
        self.end_headers()
        if not only_headers:
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        """Logs nothing."""


def _sizes(sweep):
    """Returns the sizes of the files of records, which only grow."""
    paths = sorted(sweep.workdir.glob("records/*.jsonl"))
    return [(path.name, path.stat().st_size) for path in paths]
