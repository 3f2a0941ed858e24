"""A questionnaire as a suite: `--option instrument=iri --option items=FILE`, the wording being the
user's; `repeats=5`. A model's answers about itself are no evidence of felt empathy."""

from collections.abc import Iterator

from hen_jax.core.errors import InputError
from hen_jax.evaluation.suite import Found, Measured, Suite, SuiteContext
from hen_jax.measures.administration import administer_listed
from hen_jax.measures.instruments import load_instrument, with_items
from hen_jax.measures.psychometrics import CAUTION, instrument_report
from hen_jax.measures.suites.asking import arm_chat, file_options


def _run(context: SuiteContext) -> Iterator[Found]:
    instrument = load_instrument(context.options.get("instrument", ""))
    if not instrument.items:
        [file] = file_options(context, "items", f"the {instrument.n_items} items, one a line")
        instrument = with_items(instrument, file)
    repeats = context.options.get("repeats", "5")
    if not repeats.isdigit() or not 1 <= int(repeats) <= 1000:
        raise InputError(f"--option repeats={repeats}; give 1 to 1000")
    chat = arm_chat(context, instrument.id)
    language = context.languages[0]
    fillings = administer_listed(
        instrument, chat, repeats=int(repeats), seed=context.seed, language=language
    )
    report = instrument_report(instrument, fillings)
    for name, one in report["scores"].items():
        about = f"alpha {one['alpha']}, sd {one['sd']}. {CAUTION}"
        missing = len(fillings) - one["n"]
        yield Measured("", "", instrument.id, name, one["mean"], None, None, one["n"],
                       one["n"], missing, about=about)  # fmt: skip
    for name in ("acquiescence", "refused_share"):
        yield Measured("", "", name, instrument.id, report[name], None, None, len(fillings),
                       len(fillings), 0, about=CAUTION)  # fmt: skip


SUITE = Suite(_run, "a questionnaire filled in by the model: subscales, alpha, acquiescence")
