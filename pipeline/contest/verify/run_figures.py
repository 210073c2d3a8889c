"""The figures of a run that its paper tells, as the paper writes them: what is put in, and what is looked for.

What a run did not record is said to be so, and never made up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from pipeline import settings
from pipeline.contest.source import sbom, third_party
from pipeline.contest.team import Team, TeamWords
from pipeline.prepare import container
from pipeline.schemas import HubModelConfig

UNSEEN = "not recorded"
FIELD = re.compile(r"\{\{ *(\w+) *\}\}")
"""Where a template asks for a figure."""
_MARKS = re.compile(r"[\\`*\[\]<>|#~]|(?<!\w)_|_(?!\w)|&(?=[#\w]+;)")
"""Letters that Markdown may take for marks; an underscore within a word it does not, nor an & alone."""


@dataclass(frozen=True)
class About:
    """A document's figures that are not in the manifest."""

    team: Team | TeamWords
    run: str
    commit: str
    committed_s: int
    rehearsal: bool
    accuracy_words: str | None
    """Against a run of the reference; None where there is none."""
    image: str | None

    @property
    def title(self) -> str:
        """The line at the foot of each page."""
        return f"{self.team.name}: method" + ", rehearsal" * self.rehearsal


def figures(manifest: Mapping[str, Any], source: Mapping[str, bytes], about: About) -> dict[str, str]:
    """Every figure that a template may ask for."""
    return {
        **_headlines(manifest, about),
        **_engine(manifest["engine"]),
        "team": plain(about.team.name),
        "members": plain(", ".join(about.team.members)),
        "rehearsal": "**A rehearsal: this is not a result for the contest.** " * about.rehearsal,
        "run": about.run,
        "commit": about.commit[:12],
        "date": datetime.fromtimestamp(about.committed_s, timezone.utc).strftime("%Y-%m-%d"),
        "command": " ".join(manifest["command"][1:]),
        "docker_command": docker_command(manifest, about.image),
        "image": f"`{about.image}`" if about.image else "not named yet",
        "software": _software(manifest["environment"]),
        "ideas": _ideas(third_party.parse(source[third_party.NAME])),
        "sbom": sbom.NAME,
    }


def docker_command(manifest: Mapping[str, Any], image: str | None) -> str:
    """The organiser's script in the image, on folders of theirs."""
    model = manifest["model"]["name"]
    mounts = "-v MODELS:/models:ro -v DATA:/data:ro"
    script = f"test_script.py /models/{model} /data/FILE.jsonl"
    fixed = "docker run --rm --runtime nvidia --network none --ipc host"
    return f"{fixed} {mounts} \\\n    --entrypoint python3 {image or container.IMAGE} {script}"


def _headlines(manifest: Mapping[str, Any], about: About) -> dict[str, str]:
    rows, elapsed_s, timed = manifest["dataset"]["rows"], manifest["elapsed_s"], manifest["phases_s"]["timed"]
    score, board, verdict = manifest["score"], manifest["board"]["before"], manifest.get("verdict") or {}
    remarks = "; ".join([*verdict.get("reasons", ()), *verdict.get("notes", ())])
    weights = manifest["weights"]
    return {
        "prompts": f"{rows:,}",
        "time_s": f"{elapsed_s:,.2f}" if elapsed_s else UNSEEN,
        "s_per_prompt": f"{elapsed_s / rows:.3f}" if elapsed_s else UNSEEN,
        "sections": ", ".join(f"{each:.2f} s" for each in timed) + (", their median counts" if len(timed) > 1 else ""),
        "right": f"{score['correct']:,}",
        "scored": f"{score['scored']:,}",
        "share": UNSEEN if score["share"] is None else f"{score['share']:.1%}",
        "accuracy_words": about.accuracy_words or "not compared yet",
        "model": plain(manifest["model"]["name"]),
        "dataset": plain(manifest["dataset"]["name"]),
        "device": plain(device(manifest)),
        "power_mode": f"power mode {board['mode']['name']}" if board["mode"] else "power mode not seen",
        "verdict": plain(f"{verdict.get('state', UNSEEN)}{remarks and ': '}{remarks}"),
        "peak_memory": _peak(manifest["peak_memory"]),
        "weights_origin": origin(manifest["model"]["name"]),
        "tensors": f"{weights['tensors']:,}",
        "weights_bytes": f"{weights['size_bytes'] / 1e9:,.2f} GB",
        "load_s": f"{manifest['phases_s']['load']:.1f}",
        "warm_up_s": f"{manifest['phases_s']['warm_up']:.1f}",
        "answer_tokens": f"{manifest['answer_tokens']:,}",
    }


def origin(model: str) -> str:
    """A sentence on whose weights they are, and in what they differ from those that were published."""
    config = settings.model(model) if model in settings.model_names() else None
    if isinstance(config, HubModelConfig):
        return (
            "The weights are those that the model's authors published, in the type in which they are stored: no "
            "quantisation, no pruning, no training, no change of structure."
        )
    if config is None:
        return (
            f"The weights are those of the folder {plain(model)}, in the type in which they are stored: nothing here "
            "quantises, prunes or trains them."
        )
    adapter = ", and an adapter that was trained by this project is merged into them" if config.adapter else ""
    return (
        f"**The weights are a stand-in's and not Phi-3-medium's**: {plain(config.title)}. They come from a file that "
        f"had been quantised in blocks, whose values were read back exactly into {config.dtype}{adapter}. From there "
        "on nothing is changed."
    )


def _engine(engine: Mapping[str, Any]) -> dict[str, str]:
    """Figures of our engine; transformers' own keeps no such books."""
    names = ("prompt_tokens", "tree_tokens", "saved", "passes", "proposed", "accepted", "predicted_s", "passes_s")
    stats = engine.get("stats")
    if stats is None:
        return dict.fromkeys((*names, "failed_allocations"), UNSEEN)
    proposed, accepted = (sum(stats[key].values()) for key in ("drafts_proposed", "drafts_accepted"))
    saved = stats["prompt_tokens"] - stats["tree_tokens"]
    return {
        "prompt_tokens": f"{stats['prompt_tokens']:,}",
        "tree_tokens": f"{stats['tree_tokens']:,}",
        "saved": f"{saved:,} ({saved / max(1, stats['prompt_tokens']):.0%})",
        "passes": f"{stats['passes']:,}",
        "proposed": f"{proposed:,}",
        "accepted": f"{accepted:,}",
        "predicted_s": UNSEEN if stats["predicted_s"] is None else f"{stats['predicted_s']:.2f}",
        "passes_s": f"{stats['passes_s']:.2f}",
        "failed_allocations": f"{stats['failed_allocations']:,}" if stats["failed_allocations"] else "no",
    }


def _peak(peak: Mapping[str, int | None]) -> str:
    host_bytes, gpu_bytes = peak["host_bytes"], peak["gpu_bytes"]
    on_gpu = f", {gpu_bytes / 1e9:.2f} GB of them by the GPU" if gpu_bytes else ""
    return UNSEEN if host_bytes is None else f"{host_bytes / 1e9:.2f} GB{on_gpu}"


def _software(environment: Mapping[str, Any]) -> str:
    packages = [f"{name} {version}" for name, version in environment["packages"].items() if version]
    return ", ".join([f"Python {environment['python']}", *packages])


def plain(words: str) -> str:
    """Words of a team or a machine, escaped for Markdown: a name such as "*Blue*" stays that name."""
    return _MARKS.sub(r"\\\g<0>", words)


def _ideas(cited: third_party.ThirdParty) -> str:
    return "\n".join(f"* {plain(f'{idea.title} ({idea.source}): {idea.use}.')}" for idea in cited.ideas)


def device(manifest: Mapping[str, Any]) -> str:
    """The device of a run, in a few words."""
    board, environment = manifest["board"]["before"]["board"], manifest["environment"]
    return board["model"] or environment["gpu"] or environment["processor"] or environment["machine"]
