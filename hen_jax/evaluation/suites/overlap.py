"""Overlap with the data's replies, and variety: BLEU, chrF, ROUGE-L, distinct-n, repetition.

The tokenizers are those of the language: sacrebleu's `zh` and single characters for Chinese, for
which the defaults give 0 to equal sentences; `13a` and rouge-score's own for English. Overlap is
nearly flat where variety is not: never read one without the other. Of a text longer than `LONGEST`
the beginning is compared, and each figure says of how many.
"""

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from hen_jax.core.errors import InputError
from hen_jax.data.rollouts import repeated_share
from hen_jax.empathy.labels import Language
from hen_jax.evaluation.reply_rules import words_of
from hen_jax.evaluation.suite import Corpus, Found, Item, Observed, Suite, SuiteContext
from hen_jax.evaluation.suites.groups import groups_of, prompts_hash

ORDER, CHARACTERS, BETA = 4, 6, 2
"""Of BLEU's words and chrF's characters, and how much more chrF weighs recall: the usual ones."""

LONGEST = 10_000
"""Characters of a text that are compared; ROUGE-L takes their product of the two sides."""


def bleu_counts(reply: str, reference: str, language: Language) -> list[float]:
    """What corpus BLEU sums: matches and totals of 1 to 4 words, lengths of both sides; `[10]`."""
    found = _metrics(language).bleu.sentence_score(reply, [reference])
    return [*found.counts, *found.totals, found.sys_len, found.ref_len]


def bleu(sums: np.ndarray) -> np.ndarray:
    """sacrebleu's corpus BLEU of summed `bleu_counts` `[..., 10]`, in [0, 100]."""
    from sacrebleu.metrics.bleu import BLEU  # takes a third of a second

    rows = sums.reshape(-1, sums.shape[-1])
    found = [
        BLEU.compute_bleu(
            correct=list(row[:ORDER]),
            total=list(row[ORDER : 2 * ORDER]),
            sys_len=int(row[-2]),
            ref_len=int(row[-1]),
            smooth_method="exp",
        ).score
        for row in rows
    ]
    return np.asarray(found).reshape(sums.shape[:-1])


def chrf_counts(reply: str, reference: str) -> list[float]:
    """What corpus chrF sums: n-grams of the reply, of the reference and of both, by order; `[18]`.

    As sacrebleu counts them, those of a reply are 0 where the reference has none of that order.
    """
    counts: list[float] = []
    said, meant = ("".join(text.split()) for text in (reply, reference))
    for order in range(1, CHARACTERS + 1):
        ours, theirs = _ngrams(said, order), _ngrams(meant, order)
        counts += [
            sum(ours.values()) if theirs else 0,
            sum(theirs.values()),
            sum((ours & theirs).values()),
        ]
    return counts


def chrf(sums: np.ndarray) -> np.ndarray:
    """Corpus chrF (Popovic, 2015; sacrebleu's chrF2) of summed `chrf_counts`, in [0, 100]."""
    ours, theirs, both = np.moveaxis(sums.reshape(*sums.shape[:-1], CHARACTERS, 3), -1, 0)
    there = (ours > 0) & (theirs > 0)
    orders = np.maximum(there.sum(axis=-1), 1)
    precision, recall = (
        np.where(there, both / np.where(there, of, 1), 0).sum(axis=-1) / orders
        for of in (ours, theirs)
    )
    weighed = BETA**2 * precision + recall
    return 100 * (1 + BETA**2) * precision * recall / np.where(weighed > 0, weighed, 1)


def rouge_l(reply: str, reference: str, language: Language) -> float:
    """The F-measure of the longest common subsequence of words, in [0, 100]."""
    found = _metrics(language).rouge.score(reference, reply)["rougeL"]
    return 100 * float(found.fmeasure)


def distinct(replies: Sequence[str], n: int) -> float:
    """Different n-grams of words over all of them, in [0, 100] (Li et al., 2016).

    NaN where there is none. It falls with the amount of text: compare equal numbers of replies.
    """
    grams = [gram for reply in replies for gram in _ngrams(words_of(reply), n).elements()]
    return 100 * len(set(grams)) / len(grams) if grams else float("nan")


def _ngrams(items: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(items[at : at + n]) for at in range(len(items) - n + 1))


class _Metrics(NamedTuple):
    """Of one language."""

    bleu: Any  # of sentences
    rouge: Any
    bleu_signature: str
    chrf_signature: str


@functools.cache
def _metrics(language: Language) -> _Metrics:
    try:
        from rouge_score.rouge_scorer import RougeScorer
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise InputError(
            f"{error}; install what it needs: pip install 'hen_jax[evaluate]'"
        ) from None
    cut = "zh" if language == "zh" else "13a"
    one, whole, letters = BLEU(tokenize=cut, effective_order=True), BLEU(tokenize=cut), CHRF()
    for metric in (whole, letters):
        metric.corpus_score(["a"], [["a"]])  # the signature tells the number of references
    rouge = RougeScorer(["rougeL"], tokenizer=_Characters() if language == "zh" else None)
    return _Metrics(one, rouge, str(whole.get_signature()), str(letters.get_signature()))


class _Characters:
    """Cuts Chinese for rouge-score, whose own tokenizer drops it."""

    def tokenize(self, text: str) -> list[str]:
        """Words in lower case, each Chinese character one."""
        return words_of(text)


def observe_overlap(items: Sequence[Item], replies: Sequence[str], group: str) -> Iterator[Found]:
    """The measures of one group of one language."""
    language = items[0].language
    metrics = _metrics(language)
    long = sum(len(text or "") > LONGEST for text in (*replies, *(one.reference for one in items)))
    note = f"; the first {LONGEST} characters of {long} texts" if long else ""
    replies = [reply[:LONGEST] for reply in replies]
    references = [None if one.reference is None else one.reference[:LONGEST] for one in items]
    pairs = list(zip(replies, references, strict=True))
    ids, clusters = [item.id for item in items], [item.cluster for item in items]
    hashed = prompts_hash([item.prompt for item in items])

    def one(measure: str, rows: list, about: str, figure=None, better="higher") -> Observed:
        given: dict[str, Any] = {"better": better, "prompt_hash": hashed, "about": about + note}
        return Observed(measure, group, ids, clusters, np.asarray(rows, float), figure, **given)

    nothing = {10: [np.nan] * 10, 18: [np.nan] * 18}
    counted = [nothing[10] if b is None else bleu_counts(a, b, language) for a, b in pairs]
    yield one("bleu", counted, metrics.bleu_signature, bleu)
    counted = [nothing[18] if b is None else chrf_counts(a, b) for a, b in pairs]
    yield one("chrf", counted, metrics.chrf_signature, chrf)
    scores = [np.nan if b is None else rouge_l(a, b, language) for a, b in pairs]
    cut = "characters" if language == "zh" else "its own tokenizer, no stemmer"
    yield one("rouge_l", scores, f"rouge-score, F-measure, {cut}")
    repeated = [100 * repeated_share(words_of(a), 3) for a, _ in pairs]
    about = "mean share of 3-grams of words that a reply has said before"
    yield one("self_repetition", repeated, about, better="lower")
    by_cluster: dict[str, list[str]] = {}
    for cluster, reply in zip(clusters, replies, strict=True):
        by_cluster.setdefault(cluster, []).append(reply)
    for n in (1, 2, 3):
        about = (
            f"different {n}-grams of words of all replies; compare equal numbers of replies" + note
        )
        value, without = distinct(replies, n), _distinct_without(by_cluster, n)
        yield Corpus(f"distinct_{n}", group, value, without, len(items), 0, "higher", about)
    unique, without = _unique(by_cluster)
    about = "different replies of all" + note
    yield Corpus("unique", group, unique, without, len(items), 0, "higher", about)


def _distinct_without(by_cluster: dict[str, list[str]], n: int) -> dict[str, float]:
    """`distinct` of all replies but a cluster's, for each cluster; one pass over the text."""
    counts = {
        name: sum((_ngrams(words_of(reply), n) for reply in said), Counter())
        for name, said in by_cluster.items()
    }
    return _without(counts)


def _unique(by_cluster: dict[str, list[str]]) -> tuple[float, dict[str, float]]:
    """The share of different replies, and the same without each cluster."""
    counts = {name: Counter(map(str.strip, said)) for name, said in by_cluster.items()}
    every = sum(counts.values(), Counter())
    return 100 * len(every) / every.total(), _without(counts)


def _without(counts: dict[str, Counter]) -> dict[str, float]:
    """Different things over all, without each cluster: all but those that only it has."""
    every = Counter()
    for own in counts.values():
        every.update(own)
    total, different = every.total(), len(every)
    found = {}
    for name, own in counts.items():
        lost = sum(every[one] == times for one, times in own.items())
        left = total - own.total()
        found[name] = 100 * (different - lost) / left if left else float("nan")
    return found


def _run(context: SuiteContext) -> Iterable[Found]:
    for language in dict.fromkeys(item.language for item in context.items):
        _metrics(language)  # a library that is missing is told before anything long
    replies = [reply.text for reply in context.replies(context.items)]
    for group, places in groups_of(context.items).items():
        own = [context.items[place] for place in places]
        yield from observe_overlap(own, [replies[place] for place in places], group)


SUITE = Suite(
    _run,
    "BLEU, chrF and ROUGE-L against the data's replies; distinct-n, repetition",
    by_group=False,
)
