#!/usr/bin/env python3
"""Writes a safetensors file with random W (out, in) and X (tokens, in), for pare-layer.

python3 make_input.py FILE [OUT IN TOKENS]
"""
import json
import random
import struct
import sys


def main():
    out, inputs, tokens = (int(a) for a in sys.argv[2:5]) if len(sys.argv) > 2 else (64, 96, 512)
    numbers = random.Random(6)
    header, data = {}, b""
    for name, shape, deviation in [("W", (out, inputs), 0.05), ("X", (tokens, inputs), 1.0)]:
        values = [numbers.gauss(0, deviation) for _ in range(shape[0] * shape[1])]
        begin = len(data)
        data += struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(sys.argv[1], "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


if __name__ == "__main__":
    main()
