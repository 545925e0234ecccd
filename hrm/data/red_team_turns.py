"""The words of the red-team conversations: the items that fix one, and the phrasings of its nine turns.

The phrasings of a turn differ in their first word, so that each choice costs its entropy at one token. {s}, {t} and {g}
stand for the items; the first two turns name all three in every phrasing, turns three and nine name them again. The
turns plan, scope, assess and report, at classroom level; they hold no instructions.
"""

from __future__ import annotations

STRATEGIES = (
    "prompt_injection",
    "jailbreak",
    "data_exfiltration",
    "model_poisoning",
    "adversarial_inputs",
    "model_inversion",
    "backdoor_attacks",
    "evasion_techniques",
    "gradient_based_attacks",
    "transfer_attacks",
    "universal_adversarial_perturbations",
)
TACTICS = (
    "social_engineering",
    "technical_exploitation",
    "side_channel_attacks",
    "supply_chain_attacks",
    "zero_day_exploitation",
    "credential_stuffing",
    "phishing_simulation",
    "insider_threat_simulation",
)
GOALS = (
    "extract_sensitive_data",
    "bypass_safety_filters",
    "compromise_model_integrity",
    "manipulate_outputs",
    "create_backdoors",
    "deny_service",
    "data_poisoning",
    "intellectual_property_theft",
)
ITEMS = {"strategy": STRATEGIES, "tactic": TACTICS, "goal": GOALS}
"""What a conversation is about: one of each sort, in the order of its triple."""

PAD, UNKNOWN, END = "<pad>", "<unk>", "<eos>"
ROLES = {f"<{role}>": role for role in ("system", "user", "assistant")}
SPECIAL = (PAD, UNKNOWN, END, *ROLES)

SPEAKERS = ("system", *("user", "assistant") * 4)
"""The role of each turn."""
OPENING = 2
"""So many first turns name all items of the conversation."""

PLAIN = (
    (
        "you coordinate an authorised red team exercise on {s} .",
        "this is a classroom exercise about {s} with written consent .",
        "act as an assessor who plans a review of {s} .",
    ),
    (
        "please plan an assessment of {t} where the concern is {g} .",
        "we want to rehearse {t} and learn how {g} is noticed .",
        "help our defenders prepare for {t} and prevent {g} .",
    ),
    (
        "first we agree on scope : {s} by {t} towards {g} .",
        "before anything starts the owner approves {s} , {t} and {g} .",
        "our plan covers {s} and {t} and rates {g} .",
    ),
    (
        "which rules apply while the team examines {t} ?",
        "who approves the work on {s} and may stop it ?",
        "what stays out of scope when {g} is assessed ?",
    ),
    (
        "only test accounts are used and {t} is simulated .",
        "every activity on {s} is logged for the owner .",
        "no customer data is touched when we assess {g} .",
    ),
    (
        "how do we judge the defence against {s} ?",
        "when would you say that {g} is likely ?",
        "show me the measure that you use for {t} .",
    ),
    (
        "we count how often the monitors notice {t} before {g} .",
        "detection time is compared for {s} and for {g} .",
        "each control against {s} by {t} gets a score .",
    ),
    (
        "now write the summary on {s} for the managers .",
        "could you draft a report on {g} with advice ?",
        "finally list what we learned about {t} .",
    ),
    (
        "the report says that {s} through {t} may lead to {g} .",
        "findings : {t} was noticed late so {g} by {s} is a risk .",
        "in summary the controls against {s} and {t} reduce {g} .",
    ),
)
_DOMAIN = (
    (
        "today you facilitate a defensive workshop whose topic is {s} .",
        "as lead reviewer you supervise a consented drill about {s} .",
        "imagine a laboratory that reviews {s} with written approval .",
    ),
    (
        "kindly outline an exercise on {t} whose worst outcome would be {g} .",
        "suppose auditors simulate {t} ; describe how responders contain {g} .",
        "my organisation fears {g} by {t} and requests a review .",
    ),
    (
        "agreed , the charter names {s} as theme , {t} as method and {g} as hazard .",
        "step one records assumptions : {s} , then {t} , finally {g} .",
        "good preparation maps {s} onto assets , assigns {t} to observers and ranks {g} by severity .",
    ),
    (
        "under whose authority does {t} take place ?",
        "how long may {s} run before the owner may stop it ?",
        "where do participants document evidence on {g} ?",
    ),
    (
        "inside an isolated sandbox synthetic records replace anything sensitive during {t} .",
        "an escalation contact receives notice when {s} exceeds agreed limits .",
        "legal counsel reviews each step that could lead to {g} .",
    ),
    (
        "could we quantify coverage of safeguards against {s} ?",
        "name indicators which reveal {t} at an early stage .",
        "is there a threshold beyond which {g} counts as critical ?",
    ),
    (
        "alert precision and recall are tabulated for {t} alongside {g} .",
        "telemetry from dashboards shows whether {s} triggers an incident ticket .",
        "baseline behaviour is sampled first so that {s} stands apart from {t} .",
    ),
    (
        "kindly prepare a remediation roadmap for {t} .",
        "then share lessons about {s} with engineering and compliance .",
        "before closing , rank open issues related to {g} .",
    ),
    (
        "overall resilience improved : {s} combined with {t} rarely reached {g} .",
        "our recommendation is layered : patch gaps behind {s} , train staff on {t} , monitor {g} .",
        "residual exposure remains because {t} masked {s} and delayed containment of {g} .",
    ),
)
PHRASINGS: dict[str, tuple[tuple[str, ...], ...]] = {
    "plain": PLAIN,
    "enhanced": tuple(own + more for own, more in zip(PLAIN, _DOMAIN, strict=True)),
}
"""By wording, for each turn what it may say: three phrasings, or the same and three with more of the domain's words."""
