"""Writes every C++ program of the documents to a folder, each once: in Markdown the ```cpp blocks, all of which are complete programs; in headers the
program in the comment at the top.

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
    text = pathlib.Path(document).read_text()
    if document.endswith(".hpp"):
        top = re.match(r"(?://.*\n)*", text).group()
        blocks = ["".join(line[7:] if line.startswith("//     ") else "\n" for line in re.findall(r"(//     .*\n|//\n)", top)).strip("\n") + "\n"]
    else:
        blocks = re.findall(r"^```cpp\n(.*?)^```", text, re.S | re.M)
    for block in blocks:
        assert "int main(" in block, f"{document}: this block is not a complete program:\n{block}"
        if block not in programs:
            programs.append(block)
assert programs, "no programs found in the documents"
for number, program in enumerate(programs):
    (folder / f"snippet_{number}.cpp").write_text(program)
