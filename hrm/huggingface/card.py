"""The model card of an exported folder: what the model is, what it was trained on, what it reached, how to load it.

It says what the checkpoint's manifest knows and no more; what is unknown is called so.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hrm.huggingface.lineage import link_in_words

if TYPE_CHECKING:
    from hrm.huggingface.exporting import Export

UNKNOWN, LICENSE = "unknown", "LICENSE"
EXAMPLE = "The"
"""A prompt of a model whose data have no template."""


def model_card(manifest: dict[str, Any], class_name: str, tokenized: bool, export: Export) -> str:
    """README.md, with the header that the hub reads."""
    parts = [
        _header(export),
        f"# {manifest['spec']['model']['kind']}, {manifest['num_parameters']:,} parameters\n",
        _what(manifest, export),
        _loading(class_name, tokenized, export),
        _same_here(manifest, tokenized, export),
        _prompts(class_name, export),
        _probabilities(manifest),
        _section("Data", _data(manifest)),
        _section("Metrics", _metrics(manifest)),
        _section("Training", _training(manifest)),
        _section("Origin", _origin(manifest, export)),
        _section("License", _license(export)),
    ]
    return "\n".join(part for part in parts if part)


def _header(export: Export) -> str:
    known = export.license if export.license_text is None else "other"
    lines = [f"license: {known}", "library_name: transformers", "pipeline_tag: text-generation"]
    if export.license_text is not None:
        lines += [f"license_name: {export.license}", f"license_link: {LICENSE}"]
    return "\n".join(["---", *lines, "tags:", "- hierarchical-reasoning-model", "---", ""])


def _what(manifest: dict[str, Any], export: Export) -> str:
    spec = json.dumps(manifest["spec"]["model"], ensure_ascii=False)
    sizes = f"{export.shape.vocab_size:,} tokens, rows of up to {export.shape.sequence_length:,} positions"
    which = "averaged (EMA)" if export.checkpoint.ema is not None and export.weights != "raw" else "as trained"
    return f"A causal language model: {sizes}. Weights {which}, in {export.dtype}.\n\n```json\n{spec}\n```\n"


def _loading(class_name: str, tokenized: bool, export: Export) -> str:
    """A snippet that runs once FOLDER is the folder."""
    ours = class_name == "HrmForCausalLM"
    lines = [
        *(["import hrm  # of hrm-orchestrator: tells Transformers of the class"] if ours else []),
        f"from transformers import AutoModelForCausalLM{', AutoTokenizer' if tokenized else ''}",
        "",
        'model = AutoModelForCausalLM.from_pretrained("FOLDER")',
    ]
    if tokenized:
        lines += [
            'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
            f'inputs = tokenizer({json.dumps(export.prompt, ensure_ascii=False)}, return_tensors="pt")',
            *([_MARKS] if class_name == "HrmTextForCausalLM" and export.prompts_whole else []),
            f"print(tokenizer.decode(model.generate(**inputs, max_new_tokens={_room(export)})[0]))",
        ]
    says = f"The class is `{class_name}`" + (" of hrm-orchestrator" if ours else " of Transformers (5.9 and newer)")
    without = "" if tokenized else "\nNo tokenizer is here: the checkpoint names no text that it was trained on.\n"
    code = "\n".join(lines)
    return f"## Loading\n\n{says}; no code of this folder is run.\n\n```python\n{code}\n```\n{without}"


_MARKS = 'inputs["token_type_ids"] = inputs["attention_mask"].clone()  # the prompt is read as a whole'


def _room(export: Export) -> int:
    """New tokens of the example: 20, or as many as there are positions for."""
    used = len(EXAMPLE) + 1 if export.tokenizer is None else len(export.tokenizer.prompt(export.prompt))
    return max(1, min(20, export.shape.sequence_length + 1 - used))


def _same_here(manifest: dict[str, Any], tokenized: bool, export: Export) -> str:
    """How hrm-orchestrator gives the tokens of the snippet, where it does."""
    others = export.weights == "raw" and export.checkpoint.ema is not None
    if not tokenized or others or export.dtype != "float32":
        return ""
    trained = (manifest.get("resolved") or {}).get("precision", "float32")
    else_in = "" if trained == "float32" else f"; without it, it computes in {trained}, as the training did"
    return f"On the checkpoint, `generate --precision float32` gives these tokens{else_in}.\n"


def _prompts(class_name: str, export: Export) -> str:
    if class_name != "HrmTextForCausalLM":
        return ""
    if not export.prompts_whole:
        return "Every position looks back only: its rows have no prompts. Leave `token_type_ids` out, or 0.\n"
    return """It was trained with prompts that are read as a whole (PrefixLM): a prompt's positions are marked by
`token_type_ids` = 1, all others by 0. Generate with the cache (the default).
"""


def _probabilities(manifest: dict[str, Any]) -> str:
    loss = manifest["spec"].get("loss", "softmax")
    if loss == "softmax":
        return ""
    return f"""It was trained for the probabilities of {loss}, not for the softmax of its logits. The most likely token
is the same; what Transformers samples, and the losses and perplexities that it computes, are not those of the training.
"""


def _data(manifest: dict[str, Any]) -> list[str]:
    task = manifest["spec"].get("task")
    if task is None:
        return ["Unknown: the weights were imported."]
    fingerprint = manifest.get("dataset_fingerprint", UNKNOWN)
    return [f"Rows with the fingerprint `{fingerprint}`, of the recipe", "", "```json", json.dumps(task), "```"]


def _metrics(manifest: dict[str, Any]) -> list[str]:
    validation = manifest.get("validation") or {}
    if not validation:
        return ["None were measured."]
    rows = [f"| {name} | {value:.6g} |" for name, value in validation.items()]
    return ["On the validation split:", "", "| metric | value |", "|---|---|", *rows]


def _training(manifest: dict[str, Any]) -> list[str]:
    spec, done = manifest["spec"], manifest.get("progress") or {}
    amounts = [f"{name} {value:,.6g}" for name, value in done.items()]
    lines = [f"- spent: {', '.join(amounts)}"] if amounts else ["- unknown: the weights were imported"]
    if "optimizer" in spec:
        lines.append(f"- optimizer: `{json.dumps(spec['optimizer'])}`, batch size {spec['batch_size']}")
    if "resolved" in manifest:
        lines.append(f"- computed in {manifest['resolved'].get('precision', UNKNOWN)}")
    return lines


def _origin(manifest: dict[str, Any], export: Export) -> list[str]:
    code = manifest.get("code") or {}
    changed = " with changes of its own" if code.get("dirty") else ""
    trial = manifest.get("trial_id") or "none, it was imported"
    lines = [f"- trial: {trial}", f"- code: {code.get('commit') or UNKNOWN}{changed}"]
    lineage = manifest.get("lineage")
    while lineage:
        lines.append(f"- started from: {link_in_words(lineage)}, sha256 {lineage['sha256'][:16]}")
        lineage = lineage.get("lineage")
    return lines


def _license(export: Export) -> list[str]:
    if export.license_text is not None:
        return [f"{export.license}: see [{LICENSE}]({LICENSE})."]
    if export.license == UNKNOWN:
        return ["Unknown: whoever exported the weights did not say. Ask before you use them."]
    return [f"{export.license}, as whoever exported the weights says."]


def _section(title: str, lines: list[str]) -> str:
    return "\n".join([f"## {title}", "", *lines, ""])
