"""Writes every C++ program of the documents to a folder, each once: the blocks that begin with ```cpp. All of them are whole programs.

Arguments: the folder, the documents.
"""

import pathlib
import re
import sys

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for left_over in folder.glob("*.cpp"):
    left_over.unlink()
programs = []
for document in sys.argv[2:]:
    for block in re.findall(r"^```cpp\n(.*?)^```", pathlib.Path(document).read_text(), re.S | re.M):
        assert "int main(" in block, f"{document}: this block is no whole program:\n{block}"
        if block not in programs:
            programs.append(block)
assert programs, "there are no programs in the documents"
for number, program in enumerate(programs):
    (folder / f"snippet_{number}.cpp").write_text(program)
