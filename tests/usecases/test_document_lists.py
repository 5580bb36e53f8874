"""The lists in a document are those that a reader of the whole document finds, with as many elements."""

from __future__ import annotations

import io
import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pik.inputs.document_lists import lists_in, lists_of, record_count
from pik.model.record_path import path_text

OBJECTS = st.recursive(
    st.dictionaries(st.sampled_from(["at", 'é"']), st.none() | st.integers() | st.text(max_size=4), max_size=1),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "-"]), inner | st.lists(inner, max_size=3), min_size=1),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(document=OBJECTS, indent=st.sampled_from([None, 1]))
@example(document={"a": [{"b": [{}, {}]}, {"b": [{}]}]}, indent=None)
@example(document={"a": {"a": {"a": {"a": [{"a": [{}]}]}}}}, indent=1)
@example(document={"a": [{"S": {"S": ""}, "a": {"S": ""}, "b": [{}, {}]}]}, indent=None)
def test_lists_are_counted_piece_by_piece_as_in_the_whole_document(
    document: dict[str, Any], indent: int | None
) -> None:
    text = json.dumps(document, indent=indent).encode()
    found = {path_text(one.path): one.records for one in lists_of(io.BytesIO(text)) if one.has_objects}
    assert found == {path_text(path): record_count(document, path) for path in lists_in(document)}


def test_of_a_document_that_is_long_cut_or_malformed_the_lists_before_that_count() -> None:
    text = json.dumps({"rows": [{"n": 1}] * 9, "more": [{"n": 2}] * 9}).encode()
    [rows, more] = lists_of(io.BytesIO(text.replace(b'"n": 2', b'"n" 2')), len(text) - 30)
    assert (str(rows), rows.whole, more.whole) == ("rows[] (9)", True, False)
    assert str(more) == f"more[] (more than {more.records})"
