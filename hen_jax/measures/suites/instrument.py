"""A questionnaire as a suite: `--option instrument=iri --option items=FILE`, the wording being
the user's; `repeats=5`, `way=listed` (one message) or `apart` (one item each), `norms=FILE`.
A model's answers about itself are no evidence of felt empathy."""

from collections.abc import Iterator
from pathlib import Path

from hen_jax.core.errors import InputError
from hen_jax.core.files import read_json
from hen_jax.evaluation.suite import Found, Measured, Suite, SuiteContext
from hen_jax.measures.administration import administer, administer_listed
from hen_jax.measures.instruments import load_instrument, with_items
from hen_jax.measures.psychometrics import CAUTION, beside_norms, instrument_report
from hen_jax.measures.suites.asking import arm_chat
from hen_jax.measures.suites.options import one_file, whole_number

_WAYS = {"listed": administer_listed, "apart": administer}


def _run(context: SuiteContext) -> Iterator[Found]:
    instrument = load_instrument(context.options.get("instrument", ""))
    if not instrument.items:
        file = one_file(context, "items", f"the {instrument.n_items} items, one a line")
        instrument = with_items(instrument, file)
    repeats = whole_number(context, "repeats", 5, 1, 1000)
    chat = arm_chat(context, instrument.id)
    language = context.languages[0]
    way = context.options.get("way", "listed")
    if way not in _WAYS:
        raise InputError(f"--option way={way}; allowed: {', '.join(_WAYS)}")
    fillings = _WAYS[way](instrument, chat, repeats=repeats, seed=context.seed, language=language)
    report = instrument_report(instrument, fillings)
    for name, one in report["scores"].items():
        about = f"alpha {one['alpha']}, sd {one['sd']}. {CAUTION}"
        missing = len(fillings) - one["n"]
        yield Measured("", "", instrument.id, name, one["mean"], None, None, one["n"],
                       one["n"], missing, about=about)  # fmt: skip
    for name in ("acquiescence", "refused_share"):
        yield Measured("", "", name, instrument.id, report[name], None, None, len(fillings),
                       len(fillings), 0, about=CAUTION)  # fmt: skip
    if "norms" in context.options:
        file = one_file(context, "norms", "means and standard deviations of people")
        for name, value in beside_norms(report, _norms(file)).items():
            about = f"sd from the given norm. {CAUTION}"
            yield Measured("", "", "beside_norms", name, value, None, None, len(fillings),
                           len(fillings), 0, about=about)  # fmt: skip


def _norms(path: Path) -> dict[str, tuple[float, float]]:
    """The means and standard deviations of a JSON object: `{"Fantasy": [15.7, 5.6]}`."""
    found = read_json(path)
    try:
        return {str(name): (float(mean), float(sd)) for name, (mean, sd) in found.items()}
    except (AttributeError, TypeError, ValueError):
        raise InputError(f'{path}: no norms; give {{"SUBSCALE": [mean, sd], ...}}') from None


SUITE = Suite(
    _run,
    "a questionnaire filled in by the model: subscales, alpha, acquiescence",
    options=("instrument", "items", "repeats", "way", "norms"),
)
