"""Create so many small files and fsync each: what a plain program pays for as many durable objects."""

import os
import shutil
import sys
from pathlib import Path

number, directory = int(sys.argv[1]), Path(sys.argv[2])
shutil.rmtree(directory, ignore_errors=True)
directory.mkdir(parents=True)
for name in range(number):
    with (directory / str(name)).open("xb") as file:
        file.write(b"x" * 400)
        file.flush()
        os.fsync(file.fileno())
