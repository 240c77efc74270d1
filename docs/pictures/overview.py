#!/usr/bin/env python3
"""Draws overview.svg: a linear before and after, as pare-layer compressed it.

python3 docs/pictures/overview.py PARE_LAYER

W has rows of different size, so that they get different widths; everything drawn on the right is what
pare-layer wrote.
"""
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

ROWS, COLUMNS, TOKENS, CELL = 10, 20, 200, 17
COLOURS = {2: "#c6dbef", 3: "#9ecae1", 4: "#6baed6", 6: "#3182bd", 8: "#08519c"}
FORMATS = {"F32": "f", "U8": "B", "I32": "i", "F64": "d"}


def write_input(path):
    numbers = random.Random(11)
    sizes = [0.03 * 2 ** (0.45 * r) for r in range(ROWS)]
    numbers.shuffle(sizes)
    W = [numbers.gauss(0, size) for size in sizes for _ in range(COLUMNS)]
    X = [numbers.gauss(0, 1) for _ in range(TOKENS * COLUMNS)]
    data = struct.pack(f"<{len(W)}f", *W) + struct.pack(f"<{len(X)}f", *X)
    header = json.dumps({
        "W": {"dtype": "F32", "shape": [ROWS, COLUMNS], "data_offsets": [0, 4 * len(W)]},
        "X": {"dtype": "F32", "shape": [TOKENS, COLUMNS],
              "data_offsets": [4 * len(W), len(data)]}}).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return W


def read(path):
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    tensors = {}
    for name, info in json.loads(content[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + o for o in info["data_offsets"])
        tensors[name] = [v for v, in struct.iter_unpack("<" + FORMATS[info["dtype"]],
                                                        content[begin:end])]
    return tensors


def draw(W, after):
    lines = []
    width, height = 2 * COLUMNS * CELL + 290, ROWS * CELL + 92

    def text(x, y, what, size=13, anchor="start", weight="normal"):
        lines.append(f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" '
                     f'font-weight="{weight}">{what}</text>')

    def cells(left, colour):
        for r in range(ROWS):
            for c in range(COLUMNS):
                lines.append(f'<rect x="{left + c * CELL}" y="{40 + r * CELL}" width="{CELL - 1}" '
                             f'height="{CELL - 1}" fill="{colour(r, c)}"/>')

    left, right = 10, COLUMNS * CELL + 180
    text(left, 26, "W (out, in): every weight has 32 bits", weight="bold")
    cells(left, lambda r, c: "#525252")
    text(right, 26, "Q: a mask, and codes as wide as their row", weight="bold")
    bits = after["bits"]
    cells(right, lambda r, c: "#f0f0f0" if after["mask"][r * COLUMNS + c] else COLOURS[bits[r]])
    for r in range(ROWS):
        text(right + COLUMNS * CELL + 8, 40 + r * CELL + 13, f"{bits[r]} bits", 12)
    middle, x = 40 + ROWS * CELL / 2, left + COLUMNS * CELL
    text(x + 80, middle - 44, "activations X", 12, "middle")
    lines.append(f'<path d="M{x + 80} {middle - 38} v26" stroke="#333" stroke-width="1.5" '
                 'marker-end="url(#tip)"/>')
    lines.append(f'<path d="M{x + 14} {middle} h128" stroke="#333" stroke-width="2" '
                 'marker-end="url(#tip)"/>')
    text(x + 80, middle + 22, "column by column:", 12, "middle")
    text(x + 80, middle + 38, "prune, round, and", 12, "middle")
    text(x + 80, middle + 54, "let the columns behind", 12, "middle")
    text(x + 80, middle + 70, "make up for it", 12, "middle")
    pruned = sum(after["mask"]) / len(W)
    text(right, 40 + ROWS * CELL + 22,
         f"{100 * pruned:.0f} % of the weights are zero (light); the rows that matter more", 12)
    text(right, 40 + ROWS * CELL + 38,
         f"have more bits, {sum(bits) / len(bits):.1f} on average (drawn from a run of pare-layer)", 12)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif">\n'
            '<rect width="100%" height="100%" fill="white"/>\n'
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" '
            'markerHeight="6" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#333"/></marker>'
            '</defs>\n' + "\n".join(lines) + "\n</svg>\n")


def main():
    with tempfile.TemporaryDirectory() as folder:
        before, after = pathlib.Path(folder, "in"), pathlib.Path(folder, "out")
        W = write_input(before)
        subprocess.run([sys.argv[1], before, after, "--sparsity", "0.5", "--wbits", "4",
                        "--target-avg-bits", "4.0"], check=True, stdout=subprocess.DEVNULL)
        pathlib.Path(__file__).with_name("overview.svg").write_text(draw(W, read(after)))


if __name__ == "__main__":
    main()
