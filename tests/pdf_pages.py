"""Small PDFs written by hand: text at a place, strokes, boxes; what a test needs and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Sheet:
    """One page; y is counted from the top."""

    width: float = 595
    height: float = 842
    rotate: int = 0
    commands: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, words: str, size: float = 11, bold: bool = False) -> Sheet:
        escaped = words.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        font = "F2" if bold else "F1"
        self.commands.append(f"BT /{font} {size} Tf {x} {self.height - y - size:.1f} Td ({escaped}) Tj ET")
        return self

    def lines(self, x: float, y: float, *texts: str, size: float = 11) -> Sheet:
        for k, words in enumerate(texts):
            self.text(x, y + k * size * 1.25, words, size)
        return self

    def grid(self, xs: list[float], ys: list[float]) -> Sheet:
        for x in xs:
            self.commands.append(f"{x} {self.height - ys[0]} m {x} {self.height - ys[-1]} l S")
        for y in ys:
            self.commands.append(f"{xs[0]} {self.height - y} m {xs[-1]} {self.height - y} l S")
        return self

    def table(self, y: float, rows: list[tuple[str, ...]], widths: tuple[float, ...] = (80, 160, 100)) -> Sheet:
        xs = [72.0]
        for w in widths:
            xs.append(xs[-1] + w)
        self.grid(xs, [y + 20 * k for k in range(len(rows) + 1)])
        for k, row in enumerate(rows):
            for x, cell in zip(xs, row, strict=False):
                self.text(x + 4, y + 20 * k + 4, cell, 10, bold=False)
        return self


def write_pdf(path: Path, sheets: list[Sheet]) -> Path:
    """Write sheets as a PDF with Helvetica and Helvetica-Bold."""
    objects: list[bytes] = [b"", b""]
    for name in ("Helvetica", "Helvetica-Bold"):
        font = f"<< /Type /Font /Subtype /Type1 /BaseFont /{name} /Encoding /WinAnsiEncoding >>"
        objects.append(font.encode())
    kids = []
    for sheet in sheets:
        content = "\n".join(sheet.commands).encode("cp1252")
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
        page = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {sheet.width} {sheet.height}] /Rotate {sheet.rotate} "
            f"/Contents {len(objects)} 0 R /Resources << /Font << /F1 3 0 R /F2 4 0 R >> >> >>"
        )
        objects.append(page.encode())
        kids.append(f"{len(objects)} 0 R")
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R >>"
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>".encode()
    data, places = b"%PDF-1.4\n", []
    for number, held in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, held)
    start = len(data)
    data += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    data += b"".join(f"{p:010d} 00000 n \n".encode() for p in places)
    data += f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()
    path.write_bytes(data)
    return path
