"""Writes the bundled digits as IDX files, one of them gzipped, for the example to read. Arguments: digits.csv.gz, the folder."""

import gzip
import pathlib
import struct
import sys

rows = [[int(float(number)) for number in line.split(",")] for line in gzip.open(sys.argv[1], "rt")]
folder = pathlib.Path(sys.argv[2])
folder.mkdir()
for part, some in (("train", rows[:1200]), ("t10k", rows[1200:])):
    images = struct.pack(">HBBIII", 0, 8, 3, len(some), 8, 8) + bytes(16 * pixel - (pixel > 15) for row in some for pixel in row[:64])
    (folder / f"{part}-images.idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, len(some)) + bytes(row[64] for row in some))
