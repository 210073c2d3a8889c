"""A finished run becomes one tar file: the same bytes every time, the exact source, nothing that gives people away."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.submissions import Clone, change_manifest

from pipeline.contest.submit import pack, redact
from pipeline.contest.team import Team
from pipeline.errors import EnvironmentProblem, IntegrityError, PipelineError, UsageError

pytestmark = pytest.mark.checkout

TEAM = Team(name="Blue Team!", members=("Kim", "Lee"))
NOBODY = redact.Names()


@pytest.fixture
def made(original: Clone, tmp_path: Path) -> Clone:
    """One to change."""
    shutil.copytree(original.path, tmp_path / "checkout", ignore=shutil.ignore_patterns("dist"))
    return Clone(tmp_path / "checkout")


def packed(made: Clone, out: Path, team: Team = TEAM, **how: object) -> Path:
    return pack.pack(made.run, team, out, checkout=made.path, **{"names": NOBODY, **how})


def unpacked(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name.split("/", 1)[1]: archive.extractfile(member).read() for member in archive}


def source_names(found: dict[str, bytes]) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(found["source.tar"])) as archive:
        return {member.name for member in archive if member.isreg()}


@pytest.mark.slow
def test_two_packs_of_one_run_are_the_same_bytes(original: Clone, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "checkout"
    shutil.copytree(original.path, moved)
    (Clone(moved).run / "manifest.json").touch()
    one, two = packed(original, tmp_path / "one"), packed(Clone(moved), tmp_path / "two")
    assert one.name == two.name
    assert one.read_bytes() == two.read_bytes()


def test_the_archive_is_named_by_its_listing_and_the_listing_covers_every_other_file(
    original: Clone, tmp_path: Path
) -> None:
    path = packed(original, tmp_path)
    found = unpacked(path)
    listing = found.pop("MANIFEST.sha256")
    assert path.name == f"blue-team-{hashlib.sha256(listing).hexdigest()[:12]}.tar"
    assert listing.decode().splitlines() == [
        f"{hashlib.sha256(content).hexdigest()}  {name}" for name, content in sorted(found.items())
    ]
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    assert {member.name.split("/")[0] for member in members} == {path.stem}
    assert [member.name for member in members] == sorted(member.name for member in members)
    committed = int(original.git("show", "-s", "--format=%ct", "HEAD"))
    told = {(m.uid, m.gid, m.uname, m.gname, m.mtime, m.mode, m.isreg()) for m in members}
    assert told == {(0, 0, "", "", committed, 0o644, True)}


def test_a_submission_says_whose_which_and_from_what(original: Clone, tmp_path: Path) -> None:
    found = unpacked(packed(original, tmp_path))
    told, manifest = json.loads(found["submission.json"]), json.loads(found["run/manifest.json"])
    assert told["schema"] == 1
    assert told["rehearsal"] is False
    assert told["team"] == {"name": "Blue Team!", "members": ["Kim", "Lee"]}
    assert told["run"] == original.run.name
    assert told["commit"] == original.git("rev-parse", "HEAD") == manifest["code"]["commit"]
    assert told["model"] == manifest["model"]
    assert told["dataset"] == manifest["dataset"]
    assert told["files"] == {
        name: len(content) for name, content in found.items() if name not in ("submission.json", "MANIFEST.sha256")
    }
    assert (original.run / "answers.jsonl").exists()
    assert "run/answers.jsonl" not in found  # made of the outputs, and made again of them
    assert found["run/outputs.jsonl"] == (original.run / "outputs.jsonl").read_bytes()


def test_the_source_is_the_commits_and_not_the_folders(original: Clone, tmp_path: Path) -> None:
    found = unpacked(packed(original, tmp_path))
    names = source_names(found)
    assert names == set(original.git("ls-files").splitlines())
    assert not any(name.startswith("runs/") for name in names)


def test_the_source_of_an_older_run_is_the_older_commits(made: Clone, tmp_path: Path) -> None:
    (made.path / "later.txt").write_text("later")
    made.git("add", "later.txt")
    made.git("commit", "--quiet", "--message", "Later")
    assert "later.txt" not in source_names(unpacked(packed(made, tmp_path)))


def test_a_rehearsal_says_so_in_its_name_and_in_its_words(original: Clone, tmp_path: Path) -> None:
    path = packed(original, tmp_path, rehearsal=True)
    assert path.name.startswith("blue-team-rehearsal-")
    assert json.loads(unpacked(path)["submission.json"])["rehearsal"] is True


def test_an_image_goes_in_when_it_is_given(original: Clone, tmp_path: Path) -> None:
    (tmp_path / "saved.tar").write_bytes(b"layers" * 1000)
    path = packed(original, tmp_path, image=pack.Image("phi3", "sha256:1"), image_tar=tmp_path / "saved.tar")
    found = unpacked(path)
    assert found["image.tar"] == b"layers" * 1000
    assert json.loads(found["submission.json"])["image"] == {"reference": "phi3", "digest": "sha256:1"}


def refuse_to_pack(made: Clone, out: Path, kind: type[PipelineError], code: str) -> None:
    with pytest.raises(kind) as caught:
        packed(made, out)
    assert caught.value.code == code
    assert list(out.glob("*")) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"code": {"commit": None, "dirty": None}}, "M611"),
        ({"code": {"commit": "1" * 40, "dirty": True}}, "M612"),
        ({"code": {"commit": "1" * 40, "dirty": None}}, "M612"),
        ({"code": {"commit": "1" * 40, "dirty": False}}, "M613"),
    ],
)
def test_a_run_whose_source_nobody_knows_is_not_packed(
    made: Clone, tmp_path: Path, changes: dict[str, object], code: str
) -> None:
    change_manifest(made.run, **changes)
    refuse_to_pack(made, tmp_path / "out", IntegrityError, code)


def test_a_changed_checkout_is_not_packed(made: Clone, tmp_path: Path) -> None:
    (made.path / "README.md").write_text("mine")
    refuse_to_pack(made, tmp_path / "out", IntegrityError, "M614")


def test_data_of_one_s_own_in_the_checkout_hinders_nothing(made: Clone, tmp_path: Path) -> None:
    (made.path / "my").mkdir()
    (made.path / "my" / "prompts.jsonl").write_text("mine")
    assert packed(made, tmp_path / "out").is_file()


def test_what_a_run_was_made_with_beside_the_commit_is_named(made: Clone, tmp_path: Path) -> None:
    changed = ["pipeline/mine.py", "configs/a.yaml", "configs/b.yaml", "configs/c.yaml"]
    change_manifest(made.run, code={"commit": "1" * 40, "dirty": True, "changed": changed})
    with pytest.raises(IntegrityError) as caught:
        packed(made, tmp_path / "out")
    assert caught.value.where.endswith("pipeline/mine.py, configs/a.yaml, configs/b.yaml and 1 more")
    assert "git stash --include-untracked" in caught.value.fix


def test_without_git_the_error_says_where_to_pack(made: Clone, tmp_path: Path) -> None:
    shutil.rmtree(made.path / ".git")
    refuse_to_pack(made, tmp_path / "out", EnvironmentProblem, "E601")


def test_an_unfinished_run_is_not_packed(made: Clone, tmp_path: Path) -> None:
    change_manifest(made.run, state="failed")
    refuse_to_pack(made, tmp_path / "out", UsageError, "U501")


def test_a_report_of_the_run_is_left_out(original: Clone, made: Clone, tmp_path: Path) -> None:
    (made.run / "report.html").write_text("<script>")
    assert packed(made, tmp_path / "with").read_bytes() == packed(original, tmp_path / "without").read_bytes()


def test_a_link_in_a_runs_folder_is_not_followed(made: Clone, tmp_path: Path) -> None:
    (made.run / "notes.txt").symlink_to("/etc/passwd")
    refuse_to_pack(made, tmp_path / "out", IntegrityError, "M615")


def lost(made: Clone) -> None:
    """Something of every kind in a run's files."""
    log = made.run / "run.log"
    token = "hf_" + "x" * 34
    log.write_text(
        log.read_text() + f"{token} of kimchul on orin-lab-3, /home/kimchul/x, 10.20.30.40, kim@example.org\n"
    )
    change_manifest(
        made.run, command=["invoke", "run", "--dataset", "/home/kimchul/rows.jsonl"], password="open sesame"
    )
    (made.run / "outputs.jsonl").write_text(
        (made.run / "outputs.jsonl").read_text().replace('"generated_text": "', f'"generated_text": "{token} ', 1)
    )


def test_a_model_that_is_named_by_its_path_does_not_give_its_owner_away(made: Clone, tmp_path: Path) -> None:
    manifest = json.loads((made.run / "manifest.json").read_text())
    change_manifest(made.run, model={**manifest["model"], "name": "/home/kimchul/phi3"})
    names = redact.Names(users=frozenset({"kimchul"}), hosts=frozenset())
    found = unpacked(packed(made, tmp_path / "out", names=names))
    assert json.loads(found["submission.json"])["model"] == json.loads(found["run/manifest.json"])["model"]
    assert b"kimchul" not in found["submission.json"]


def test_what_gives_people_away_is_replaced_and_listed(made: Clone, tmp_path: Path) -> None:
    lost(made)
    names = redact.Names(users=frozenset({"kimchul"}), hosts=frozenset({"orin-lab-3"}))
    answered = (made.run / "outputs.jsonl").read_bytes()
    found = unpacked(packed(made, tmp_path / "out", names=names))
    told = {name for name in found if name.startswith("run/")} - {"run/outputs.jsonl"}
    private = (b"kimchul", b"orin-lab-3", b"hf_x", b"10.20.30", b"sesame")
    assert {"run/manifest.json", "run/run.log"} <= told
    for name in told:
        assert not any(word in found[name] for word in private), name
    assert found["run/outputs.jsonl"] == answered
    listed = {
        (each["file"], each["kind"], each["count"], each["left"])
        for each in json.loads(found["submission.json"])["redactions"]
    }
    assert listed >= {
        ("run/run.log", "token", 1, False),
        ("run/run.log", "host name", 1, False),
        ("run/run.log", "user name", 1, False),
        ("run/run.log", "home path", 1, False),
        ("run/run.log", "address", 1, False),
        ("run/run.log", "account", 1, False),
        ("run/manifest.json", "home path", 1, False),
        ("run/manifest.json", "secret", 1, False),
        ("run/outputs.jsonl", "token", 1, True),
    }


def clean(text: str, **names: set[str]) -> str:
    named = redact.Names(**{key: frozenset(value) for key, value in names.items()})
    return redact.redact({"run.log": text.encode()}, named)[0]["run.log"].decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ghp_" + "a" * 36, "[token]"),
        ("export API_KEY='abc'", "export API_KEY='[secret]'"),
        ("DB_PASSWORD: hunter2", "DB_PASSWORD: [secret]"),
        ("https://me:pw@example.org/x", "https://[secret]@example.org/x"),
        ("/Users/kim/models", "/Users/[home path]/models"),
        ("fe80::1:2 and 192.168.0.7", "[address] and [address]"),
        ("aa:bb:cc:00:11:22", "[address]"),
    ],
)
def test_kinds_of_secrets(text: str, expected: str) -> None:
    assert clean(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "max_new_tokens: 500, answer_tokens=39",
        "2026-11-25T15:08:07.528+00:00 INFO load 4.54 s",
        "torch 2.4.0a0+f70bd71a48.nv24.6, L4T 36.3.0, 5.15.136-tegra",
        "std::vector, 127.0.0.1, ::1",
        "Linux-6.18.44-x86_64-with-glibc2.36",
        "d0bdc550577f9e38f2b899857791292fb0d47f669a1daa50738f93f77025bfaf",
    ],
)
def test_what_gives_nobody_away_is_left(text: str) -> None:
    assert clean(text) == text


def test_names_are_replaced_as_words_only() -> None:
    assert clean("kim, kimono, (kim)", users={"kim"}) == "[user name], kimono, ([user name])"


def test_json_stays_json() -> None:
    text = json.dumps({"note": 'a\n"kim"\tb', "nested": [{"api_key": "x", "n": 1.5}]})
    found = json.loads(redact.redact({"a.json": text.encode()}, redact.Names(users=frozenset({"kim"})))[0]["a.json"])
    assert found == {"note": 'a\n"[user name]"\tb', "nested": [{"api_key": "[secret]", "n": 1.5}]}


def test_a_user_named_like_the_model_does_not_spoil_the_run() -> None:
    files, found = redact.redact({"run.log": b"standin"}, redact.Names(users=frozenset({"standin"})), ["standin"])
    assert files == {"run.log": b"standin"}
    assert found == [redact.Redaction("run.log", "user name", 1, left=True)]


def test_what_is_not_text_is_left() -> None:
    assert redact.redact({"a.bin": b"\xff\x00hf_"}, NOBODY) == ({"a.bin": b"\xff\x00hf_"}, [])


def test_this_machines_names_say_something() -> None:
    names: Callable[[], redact.Names] = redact.names_here
    assert not {"root", "localhost", ""} & (names().users | names().hosts)


@pytest.mark.parametrize(
    ("name", "slug"),
    [("때론메모리도필요해", "때론메모리도필요해"), ("../../etc", "etc"), ("!", "team"), ("A_b c", "a-b-c")],
)
def test_a_teams_name_makes_a_files_name(name: str, slug: str) -> None:
    assert Team(name=name, members=("a",)).slug == slug
