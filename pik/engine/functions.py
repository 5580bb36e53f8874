"""Which of DuckDB's functions a definition may call, and why not the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

AGGREGATES = frozenset("count_star count count_if countif sum min max bit_and bit_or bit_xor bool_and bool_or".split())
"""The aggregates whose result neither order nor floating point can change (`sum` not over DOUBLE: see check)."""

_HARMLESS_MACROS = frozenset("if nullif date_add days_in_month list_sum list_min list_max list_count".split())
"""Macros that are plain expressions of their arguments; others may hide aggregates or the clock."""

_MISLABELLED = frozenset("age current_localtime current_localtimestamp hash version".split())
"""Functions that depend on the clock or on DuckDB's version, whatever its catalog says of them."""

_AVERAGE = (
    "{name} adds in floating point, so the order of events would change it; exact is "
    "(sum(x) / count(x))::DECIMAL(18, 6), or a metric each for sum(x) and count(x)"
)
_ONE_OF_MANY = "{name} takes whichever event comes first, and events have no order; exact is min(x) or max(x)"
_COLLECTS = "{name} keeps every value of a bucket in memory, in no order; exact is count(DISTINCT x), min(x), max(x)"
_APPROXIMATES = "{name} approximates; exact is count(DISTINCT x)"
_FLOATS = "{name} computes in floating point, so the order of events would change it; exact are {exact}"
_REASONS = {
    _AVERAGE: "avg mean favg decimal_average",
    _ONE_OF_MANY: "first last any_value arbitrary mode arg_min arg_max argmin argmax min_by max_by arg_min_null "
    "arg_max_null arg_min_nulls_last arg_max_nulls_last",
    _COLLECTS: "list array_agg string_agg group_concat listagg histogram histogram_exact median quantile quantile_disc "
    "quantile_cont mad",
    _APPROXIMATES: "approx_count_distinct approx_quantile approx_top_k reservoir_quantile",
}
_REASON = {name: reason for reason, names in _REASONS.items() for name in names.split()}
EXACT = "count, count_if, sum, min, max, bit_and, bit_or, bit_xor, bool_and, bool_or"
_KAHAN = "{name} adds in floating point, only less so; exact is sum(x::DECIMAL(18, 6))"


def function_kind(db: DuckDBPyConnection, name: str) -> tuple[str, str]:
    """(`aggregate` or `scalar`, why the function is refused); the reason is empty for those that are not."""
    if name in AGGREGATES:
        return "aggregate", ""
    if not any(map(str.isalnum, name)):
        return "scalar", ""  # an operator
    if name in ("fsum", "kahan_sum", "sumkahan"):
        return "aggregate", _KAHAN.format(name=name)
    if name in _REASON:
        return "aggregate", _REASON[name].format(name=name)
    kinds, consistent = _catalog(db).get(name, (frozenset(), False))
    if "aggregate" in kinds:
        return "aggregate", _FLOATS.format(name=name, exact=EXACT)
    if "macro" in kinds and name not in _HARMLESS_MACROS:
        return "scalar", f"{name} is a macro, which may hide anything; write out what it stands for"
    if not kinds:
        return "scalar", f"there is no function {name}"
    if not kinds & {"scalar", "macro"}:
        return "scalar", f"{name} makes rows of its own; a metric is computed from the bucket's events"
    if name in _MISLABELLED or not (consistent or name in _HARMLESS_MACROS):
        return "scalar", f"{name} depends on when and where it runs, so the same events would give another value"
    return "scalar", ""


_CATALOG: dict[str, tuple[frozenset[str], bool]] = {}


def _catalog(db: DuckDBPyConnection) -> Mapping[str, tuple[frozenset[str], bool]]:
    """Each function's kinds, and whether all its overloads always give the same result for the same arguments."""
    if not _CATALOG:
        rows = db.execute(
            "SELECT lower(function_name), list(DISTINCT function_type), "
            "bool_and(coalesce(stability, 'CONSISTENT') = 'CONSISTENT') FROM duckdb_functions() GROUP BY ALL"
        ).fetchall()
        _CATALOG.update({name: (frozenset(kinds), consistent) for name, kinds, consistent in rows})
    return _CATALOG
