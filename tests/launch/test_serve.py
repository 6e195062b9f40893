"""`launch.report --serve`: one page, on this machine only, that follows the records."""

import errno
import http.client
import os
import signal
import socket
import urllib.parse

import pytest

from launch import cli, serve
from noisegen import storage
from tests.launch import harness
from tests.reports.test_report import PROTOCOL, RUNS, record_of, sweep_of, write


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("<body>the page</body>")
    return path


@pytest.fixture
def server():
    with serve.Server(0) as running:
        yield running


def ask(url, path="/", method="GET", **headers):
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=20)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read().decode()
    connection.close()
    return found


def test_the_page_is_served_and_asks_for_newer_ones(page, server):
    server.show(page)
    status, headers, text = ask(server.url)
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["ETag"] in text and "location.reload()" in text
    status, only, nothing = ask(server.url, method="HEAD")
    assert status == 200 and only["ETag"] == headers["ETag"] and nothing == ""
    assert text.startswith("<body>the page<script>") and text.endswith("</body>")


def test_nothing_else_is_served(page, server):
    server.show(page)
    # A query, as a browser's bookmark may have, changes nothing.
    assert ask(server.url, "/?x=1")[::2] == ask(server.url)[::2]
    for path in (
        "/sweep.json",
        "/sweep.json?x=/",
        "/../sweep.json",
        "//etc/passwd",
        "/report.html",
    ):
        assert ask(server.url, path)[0] == 404
    assert ask(server.url, method="POST")[0] == 501
    # A page of elsewhere whose name was made to point to this machine.
    assert ask(server.url, Host="example.org")[0] == 403
    assert ask(server.url, Host="localhost")[0] == 200


def test_only_this_machine_is_served(server):
    assert server.url.startswith("http://127.0.0.1:")
    port = urllib.parse.urlsplit(server.url).port
    others = {each[4][0] for each in socket.getaddrinfo(socket.gethostname(), None)}
    for address in sorted(others - {"127.0.0.1"}):
        with pytest.raises(OSError):
            socket.create_connection((address, port), timeout=5).close()


def test_a_port_that_is_taken_is_one_line(server):
    port = urllib.parse.urlsplit(server.url).port
    with pytest.raises(cli.UsageError, match=f"--serve={port}: the port is taken; give another"):
        serve.Server(port)


def test_a_port_that_is_reserved_is_one_line(monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(serve.http.server, "ThreadingHTTPServer", refuse)
    with pytest.raises(cli.UsageError, match="--serve=80: this port is not yours to use"):
        serve.Server(80)


def test_new_records_make_a_new_page_until_ctrl_c(page, server, monkeypatch, capsys):
    workdir, tags = page.parent, []
    write(workdir, map(record_of, list(RUNS)[1:]))

    def sleep(seconds):
        tags.append(ask(server.url, method="HEAD")[1]["ETag"])
        if len(tags) == 2:
            with storage.RecordWriter(workdir, "late") as writer:
                writer.append(record_of(next(iter(RUNS))))
        if len(tags) == 3:
            raise KeyboardInterrupt

    def write_report(sweep):
        page.write_text(f"{len(sweep.records())} records</body>")
        return page

    monkeypatch.setattr(serve.time, "sleep", sleep)
    monkeypatch.setattr(serve.reports, "write_report", write_report)
    server.follow(sweep_of(workdir, PROTOCOL, RUNS))
    assert tags[0] == tags[1] != tags[2]
    assert ask(server.url)[2].startswith(f"{len(list(RUNS))} records<script>")
    assert f"Open {server.url}" in capsys.readouterr().out


def test_a_page_that_cannot_be_written_stays_as_it_was(page, server, monkeypatch, capsys):
    server.show(page)
    before = ask(server.url)

    def fail(sweep):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(serve.reports, "write_report", fail)
    server._refresh(None)
    assert ask(server.url)[2] == before[2]
    assert "warning: the page stays as it was: OSError" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given, port", [("true", serve.PORT), ("false", None), ("0", 0), ("65535", 65535)]
)
def test_the_flag_takes_a_port_or_none(given, port):
    assert serve.PortParser().parse(given) == port


@pytest.mark.parametrize("given", ["65536", "-1", "abc", ""])
def test_the_flag_refuses_what_is_no_port(given):
    with pytest.raises(ValueError, match="is no port: give a number from 0 to 65535"):
        serve.PortParser().parse(given)


@pytest.mark.slow
def test_the_command_serves_until_ctrl_c(finished, environment):
    workdir, _ = finished
    words = harness.command("report", str(workdir), "--serve=0")
    with harness.running(words, environment) as process:
        line = next(line for line in process.stdout if line.startswith("Open "))
        url = line.split()[1]
        status, _, text = ask(url)
        assert status == 200 and "location.reload()" in text
        port = urllib.parse.urlsplit(url).port
        taken = harness.command("report", str(workdir), f"--serve={port}")
        with harness.running(taken, environment) as other:
            _, said = other.communicate(timeout=harness.SECONDS)
            assert other.returncode == 1 and said.startswith(f"error: --serve={port}: the port is")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=harness.SECONDS)
        assert process.returncode == 0 and said.strip() == ""
