"""Notifications as their receivers have them: signed, repeated until they are taken, and
never in the way of a backup; and nowhere that the configuration does not open."""

import json
import socket
import time

import pytest
from harness import MIB, Disk, Server, free_port, wait_for
from receivers import MailServer, Webhook, certificate, is_signed

SECRET = "a secret of 32 characters or more"[:32].replace(" ", "-")
SOURCES = """
[[source]]
kind = "images"
name = "lab"
path = "images"

[[source.server]]
name = "web-1"
disks = ["web-root.img", "web-data.img"]
"""
OPEN = '[notifications]\nallow = ["127.0.0.1", "::1"]\n'


class Watched(Server):
    """A server with a disk whose backups succeed, and another server whose backups fail."""

    def __init__(self, folder, notifications=OPEN):
        super().__init__(folder, notifications + SOURCES)
        for name, seed in (("disk.img", 1), ("web-root.img", 2), ("web-data.img", 3)):
            Disk(folder / "images" / name).create(2 * MIB, seed=seed)

    def start(self):
        super().start()
        if not self.ok("GET", "/vaults")["vaults"]:
            disk, web = self.protectables("disk")["disk.img"], self.protectables("server")["web-1"]
            self.disks = self.create_vault("disks", "disk", [disk])
            self.servers = self.create_vault("servers", "server", [web])
            (self.images / "web-data.img").rename(self.images / "gone")
        return self

    def fail(self):
        """A backup that fails: a disk of the server is not there."""
        checkpoint = self.start_backup(self.servers)
        [backup] = self.backups(f"checkpoint_id={checkpoint}")
        return self.settled_backup(backup["id"], "error")

    def target(self, name, **wish):
        body = {"notification_target": {"name": name, **wish}}
        return self.ok("POST", "/notification-targets", body)["notification_target"]

    def webhook(self, url, name="hook", **wish):
        return self.target(name, webhook={"url": url, "secret": SECRET}, **wish)

    def told(self, query=""):
        return self.ok("GET", f"/notifications?limit=1000{query}")["notifications"]

    def test(self, target):
        """Tries a target; the notification when it is over."""
        begun = self.ok("POST", f"/notification-targets/{target['id']}/test")["notification"]

        def over():
            shown = self.ok("GET", f"/notifications/{begun['id']}")["notification"]
            return shown if shown["status"] != "waiting" else None

        return wait_for("the end of a test", over)


@pytest.fixture(name="watched")
def fixture_watched(tmp_path):
    with Watched(tmp_path) as server:
        yield server


def test_a_failed_backup_is_told_and_signed(watched):
    with Webhook() as hook:
        target = watched.webhook(hook.url)
        backup = watched.fail()
        headers, body, path = hook.wait_for(1)
        assert path == "/hook"
        assert is_signed(SECRET, headers, body)
        assert not is_signed("another secret...", headers, body)
        assert not is_signed(SECRET, headers, body + b" ")
        assert abs(int(headers["x-cairn-timestamp"]) - time.time()) < 60
        told = json.loads(body)
        assert (told["event"], headers["x-cairn-event"]) == ("backup_failed", "backup_failed")
        assert told["vault"] == {"id": watched.servers, "name": "servers"}
        assert told["backup"]["id"] == backup["id"]
        assert told["resource"]["name"] == "web-1" and "failed" in told["summary"]
        log = watched.ok("GET", f"/operation-logs/{told['operation_log_id']}")["operation_log"]
        assert log["error_info"]["message"] == told["error"]["message"]
        [one] = wait_for("the delivery", lambda: watched.told("&status=delivered"))
        assert (one["id"], one["attempts"]) == (headers["x-cairn-delivery"], 1)
        assert one["target_id"] == target["id"] and one["last_error"] is None
        # Whatever succeeds is not news.
        watched.back_up(watched.disks)
        assert hook.events() == ["backup_failed"]


def test_who_is_down_is_told_later_and_holds_up_no_backup(watched):
    port = free_port()
    watched.webhook(f"http://127.0.0.1:{port}/hook")
    watched.fail()
    wait_for("an attempt", lambda: watched.told()[0]["last_error"])
    [waiting] = watched.told()
    assert waiting["status"] == "waiting" and waiting["next_attempt_at"]
    began = time.monotonic()
    watched.back_up(watched.disks)
    assert time.monotonic() - began < 10
    with Webhook(port) as hook:
        headers, body, _ = hook.wait_for(1)
        assert is_signed(SECRET, headers, body)
        assert headers["x-cairn-delivery"] == waiting["id"]
        [one] = wait_for("the delivery", lambda: watched.told("&status=delivered"))
        assert one["attempts"] > 1


def test_who_never_answers_holds_up_nobody(watched):
    with Webhook() as silent, Webhook() as hook:
        silent.answers.clear()
        watched.webhook(silent.url, "silent")
        watched.webhook(hook.url, "hook")
        for number in range(3):
            watched.fail()
            hook.wait_for(number + 1)
        assert len(silent.received) == 1
        watched.back_up(watched.disks)
        told = wait_for(
            "the end of the attempt", lambda: [one for one in watched.told() if one["last_error"]]
        )
        assert "no answer within" in told[0]["last_error"]


def test_what_an_answer_refuses_comes_again(watched):
    with Webhook() as hook:
        hook.status = 503
        watched.webhook(hook.url)
        watched.fail()
        first = hook.wait_for(1)
        wait_for("the attempt", lambda: watched.told()[0]["last_error"])
        hook.status = 204
        second = hook.wait_for(2)
        assert first[0]["x-cairn-delivery"] == second[0]["x-cairn-delivery"]
        assert first[1] == second[1]
        assert int(second[0]["x-cairn-timestamp"]) > int(first[0]["x-cairn-timestamp"])
        [one] = wait_for("the delivery", lambda: watched.told("&status=delivered"))
        assert one["attempts"] == 2 and "503" in one["last_error"]


def test_what_was_on_its_way_in_a_power_cut_arrives(tmp_path):
    with Webhook() as hook, Watched(tmp_path) as server:
        hook.answers.clear()
        server.webhook(hook.url)
        server.fail()
        first = hook.wait_for(1)
        server.kill()
        hook.answers.set()
        server.start()
        second = hook.wait_for(2)
        assert first[0]["x-cairn-delivery"] == second[0]["x-cairn-delivery"]
        assert first[1] == second[1]
        [one] = wait_for("the delivery", lambda: server.told("&status=delivered"))
        assert one["id"] == first[0]["x-cairn-delivery"]


def test_a_redirect_is_not_followed(tmp_path):
    port = free_port()
    with Webhook() as inside, Webhook(port) as hook, Watched(tmp_path) as server:
        hook.status, hook.headers = 307, {"location": inside.url}
        sent = server.test(server.webhook(hook.url))
        assert (sent["status"], sent["attempts"]) == ("failed", 1)
        assert "307" in sent["last_error"]
        assert len(hook.received) == 1 and inside.received == []


# Every spelling of this machine and its networks; the rest of the table is with the rule itself.
CLOSED = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "017700000001", "0", "localhost", "LOCALHOST.",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "10.0.0.1", "172.16.0.1",
    "192.168.0.1", "169.254.169.254", "100.64.0.1", "[fd00::1]", "[fe80::1]", "192.0.2.1", "[2001:db8::1]",
    "224.0.0.1", "[ff02::1]", "no-such-host.invalid",
]


def test_nothing_goes_to_this_network_unless_it_is_opened(tmp_path):
    with Webhook() as hook, Watched(tmp_path, "") as server:
        # One target after the other: there may be no more than 32.
        for host in CLOSED:
            target = server.webhook(f"http://{host}:{hook.port}/hook")
            sent = server.test(target)
            assert sent["status"] == "failed", host
            assert "no address that notifications may be sent to" in sent["last_error"], host
            server.ok("DELETE", f"/notification-targets/{target['id']}")
        server.webhook(hook.url)
        server.fail()
        wait_for("an attempt", lambda: [one for one in server.told() if one["event"] != "test"][0]["last_error"])
        assert hook.received == []


def test_an_open_network_opens_no_other(tmp_path):
    with Webhook() as hook, Watched(tmp_path, '[notifications]\nallow = ["10.0.0.0/8"]\n') as server:
        sent = server.test(server.webhook(f"http://127.0.0.1:{hook.port}/hook"))
        assert "may be sent to" in sent["last_error"] and hook.received == []


def test_https_is_believed_by_its_certificate(tmp_path):
    pair = certificate(tmp_path)
    with Webhook(pair=pair) as hook:
        with Watched(tmp_path / "stranger") as server:
            sent = server.test(server.webhook(hook.url))
            assert sent["status"] == "failed" and "certificate" in sent["last_error"].lower(), sent
            assert hook.received == []
        with Watched(tmp_path / "friend", f'{OPEN}ca_file = "{pair[0]}"\n') as server:
            sent = server.test(server.webhook(hook.url))
            assert sent["status"] == "delivered", sent
            wrong = server.test(server.webhook(hook.url.replace("localhost", "127.0.0.1"), "other"))
            assert wrong["status"] == "failed", "the certificate is for another name"
        assert hook.events() == ["test"]


def smtp(server, host="127.0.0.1", **options):
    lines = [f'{name} = "{value}"' for name, value in options.items()]
    return "\n".join(
        [OPEN, "[notifications.smtp]", f'host = "{host}"', f"port = {server.port}",
         'from = "Cairn <cairn@example.com>"', *lines, ""]
    )


def test_mail_arrives_at_each_address(tmp_path):
    with MailServer() as mails, Watched(tmp_path, smtp(mails, tls="none")) as server:
        addresses = ["ops@example.com", "on-call@example.org"]
        server.target("ops", mail={"addresses": addresses}, events=["backup_failed"])
        backup = server.fail()
        wait_for("the mail", lambda: mails.mails)
        [(to, mail)] = mails.mails
        assert to == addresses
        assert mail["from"] == "Cairn <cairn@example.com>"
        assert mail["subject"].startswith("Cairn: The backup of web-1 in vault servers failed")
        text = mail.get_content()
        assert backup["id"] in text and server.servers in text and "cairn-1" in text
        [one] = wait_for("the delivery", lambda: server.told("&status=delivered"))
        assert mail["message-id"] == f"<{one['id']}@example.com>"


def test_mail_that_is_refused_goes_to_nobody(tmp_path):
    with MailServer() as mails, Watched(tmp_path, smtp(mails, tls="none")) as server:
        mails.refused.add("b@example.com")
        target = server.target("ops", mail={"addresses": ["a@example.com", "b@example.com"]})
        sent = server.test(target)
        assert sent["status"] == "failed" and "nobody here" in sent["last_error"]
        assert mails.mails == []


@pytest.mark.parametrize("how", ["starttls", "implicit"])
def test_mail_is_sent_by_who_knows_the_password_over_tls_alone(tmp_path, how):
    pair = certificate(tmp_path)
    password = tmp_path / "password"
    password.write_text("pass word\n", encoding="utf-8")
    options = {"host": "localhost", "tls": how, "user": "cairn", "password_file": password}
    with MailServer(pair, ("cairn", "pass word"), implicit=how == "implicit") as mails:
        wish = {"mail": {"addresses": ["a@example.com"]}}
        with Watched(tmp_path / "stranger", smtp(mails, **options)) as server:
            sent = server.test(server.target("ops", **wish))
            assert sent["status"] == "failed" and mails.mails == [], "nobody vouches for it"
        config = smtp(mails, **options).replace(OPEN, f'{OPEN}ca_file = "{pair[0]}"\n')
        with Watched(tmp_path / "friend", config) as server:
            sent = server.test(server.target("ops", **wish))
            assert sent["status"] == "delivered", sent
            password.write_text("wrong", encoding="utf-8")
            assert server.stop() == 0
            server.start()
            [target] = server.ok("GET", "/notification-targets")["notification_targets"]
            sent = server.test(target)
            assert sent["status"] == "failed" and len(mails.mails) == 1


def test_a_mail_server_without_tls_gets_nothing_that_needs_it(tmp_path):
    with MailServer() as mails, Watched(tmp_path, smtp(mails)) as server:
        sent = server.test(server.target("ops", mail={"addresses": ["a@example.com"]}))
        assert sent["status"] == "failed" and mails.mails == []


def test_without_a_mail_server_that_is_said(watched):
    sent = watched.test(watched.target("ops", mail={"addresses": ["a@example.com"]}))
    assert "no SMTP server" in sent["last_error"]


def test_the_command_line_adds_tries_lists_and_removes(watched, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n", encoding="utf-8")
    with Webhook() as hook:
        add = ["notification", "target", "add"]
        watched.cli(
            *add, "ops", "--webhook", hook.url, "--secret-file", secret, "--event", "backup_failed",
            "--vault", "servers",
        )
        watched.cli(*add, "mail", "--mail", "a@example.com", "--mail", "b@example.com")
        listed = watched.cli("notification", "target", "list").stdout
        assert hook.url in listed and "backup_failed" in listed and "a@example.com, b@example.com" in listed
        assert SECRET not in listed
        tried = watched.cli("notification", "target", "test", "ops")
        assert "delivered" in tried.stdout
        headers, body, _ = hook.wait_for(1)
        assert is_signed(SECRET, headers, body)
        failed = watched.cli("notification", "target", "test", "mail", check=False)
        assert failed.returncode == 1 and "no SMTP server" in failed.stderr
        watched.fail()
        hook.wait_for(2)
        wait_for(
            "the delivery", lambda: "delivered" in watched.cli(
                "notification", "list", "--event", "backup_failed", "--target", "ops"
            ).stdout,
        )
        watched.cli("notification", "target", "remove", "mail")
        watched.cli("notification", "target", "remove", "ops")
        assert json.loads(watched.cli("notification", "target", "list", "-o", "json").stdout) == []
        gone = watched.cli("notification", "target", "remove", "ops", check=False)
        assert gone.returncode == 4
        watched.fail()
        assert len(hook.received) == 2
        for wrong in ([*add, "x"], [*add, "x", "--webhook", hook.url], ["notification", "list", "--event", "x"]):
            assert watched.cli(*wrong, check=False).returncode == 2


def test_a_socket_that_says_nothing_is_no_receiver(watched):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = watched.webhook(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        began = time.monotonic()
        sent = watched.test(target)
        assert "no answer within 10 s" in sent["last_error"]
        assert time.monotonic() - began < 30
