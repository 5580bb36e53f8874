"""Where a record stands in its input: what the expressions of a mapping can know beside the record itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from pik.errors import Invalid

_NULL = "__HIVE_DEFAULT_PARTITION__"
"""How Hive writes the name of a partition without a value."""


@dataclass(frozen=True, slots=True)
class Place:
    """The path of the record's file, and the record's position in that file, from 1.

    In the path of a file of an archive, the archive stands like a folder. Standard input and pipes have none.
    `parents` are the objects of the document that the record lies in, the innermost first, without the lists that lead
    to it; their numbers are as exact as the record's.
    """

    file: str = ""
    line: int = 0
    parents: tuple[Mapping[str, Any], ...] = field(default=())

    def file_name(self) -> str:
        """Return the file's name without folders. Raises Invalid where there is none."""
        if not self.file:
            raise Invalid("standard input and pipes have no file name")
        return self.file.rpartition("/")[2]

    def partition(self, name: str) -> str | None:
        """Return the value of the innermost folder NAME=VALUE, as Hive and Spark name the folders of tables; None
        where it says null. Raises Invalid where there is none."""
        value = partitions(self.file).get(name)
        if value is None:
            raise Invalid(f"no folder {name}=… in the path of the file")
        try:
            return None if value == _NULL else unquote(value, errors="strict")
        except UnicodeDecodeError:
            raise Invalid(f"the folder '{name}={value}' is not percent-encoded UTF-8") from None

    def parent(self, name: str) -> Any:
        """Return the field of the innermost parent that has it, None where none has it."""
        return next((parent[name] for parent in self.parents if name in parent), None)


NOWHERE = Place()


@lru_cache(maxsize=256)
def partitions(file: str) -> dict[str, str]:
    """Return the folders NAME=VALUE of a path: the values, still percent-encoded, by their names."""
    folders = [folder.partition("=") for folder in file.split("/")[:-1]]
    return {unquote(name): value for name, equals, value in folders if name and equals}
