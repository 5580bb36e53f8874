"""`pik cluster`: what a Spark cluster needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pik.cli.command import CommandGroup
from pik.cli.context import Context
from pik.cli.document import Field, Schema
from pik.cli.options import option
from pik.cli.values import Count

if TYPE_CHECKING:
    from pik.usecases.care.cluster_pack import PackReport


cluster = CommandGroup("Prepare a Spark cluster: pack what its executors run from.")


@cluster.add(
    "pack",
    examples="""
    pik cluster pack -o pik.tar.gz

    # to where the executors fetch it from; pik.toml names it: [cluster] archive = "s3://BUCKET/pik.tar.gz"
    aws s3 cp pik.tar.gz s3://BUCKET/pik.tar.gz
    """,
)
def pack(
    cli: Context,
    out: Annotated[Path, option("--out -o FILE.tar.gz", "The file to create.", show_default=False)],
) -> None:
    """Write the archive that executors run from: this Python, this pik, and the packages that it needs.

    It runs on machines with the same processor architecture and the same or a newer C library. The file is created
    completely or not at all, and never overwritten; the same environment gives the same bytes.
    """
    from pik.usecases.care.cluster_pack import pack as write

    cli.show(PACK, write(out, cli.progress))


def _packages(done: PackReport) -> list[str]:
    return [f"{name} {version}" for name, version in done.packages.items()]


PACK = Schema(
    "pik cluster pack",
    Field("file", str, "to name as `archive` under `[cluster]` in `pik.toml`", get="path"),
    Field("bytes", Count, "of the file", get="size"),
    Field("bytes_unpacked", Count, "which each machine of the cluster needs room for", get="unpacked"),
    Field("python", str, "the version of Python in it"),
    Field("packages", list[str], "each with its version", get=_packages),
)
