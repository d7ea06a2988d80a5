"""Files that come to a worker's shelf in one piece, wrong ones too. Run by ComfyUI's own Python.

    python shelves.py COMFYUI_ROOT FOLDER

Prints one line of JSON: for each case what was answered last, and what then lies in the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path


def main(root: str, folder: Path) -> dict:
    from frozen import enter

    enter(root)
    import folder_paths
    import torch
    from hybridiff_pack.nodes.host import files, loaders, shelf

    models = folder / "models" / "checkpoints"
    models.mkdir(parents=True)
    (models / "mine.safetensors").write_bytes(b"mine")
    folder_paths.folder_names_and_paths["checkpoints"] = ([str(models)], {".safetensors"})
    sent = folder / "sent"
    sent.write_bytes(os.urandom(3_000_000))
    size, digest = files.stamp_of(str(sent))
    data = torch.frombuffer(bytearray(sent.read_bytes()), dtype=torch.uint8)
    right = {"kind": loaders.CHECKPOINT, "size": size, "digest": digest}
    keeper = shelf.Shelf("pc-b", [str(models)])

    def case(come: torch.Tensor = data, whole: bytes | None = None, free: int = 1 << 60, **described) -> dict:
        shelf.shutil.disk_usage = lambda _: type("", (), {"free": free})
        told = {}
        try:
            frames = [{"part": "seek", **right}, {"part": "begin", **right, **described}, {"part": "piece"}]
            frames.append(
                {"part": "end", "whole": hashlib.blake2b(come.numpy() if whole is None else whole).hexdigest()}
            )
            for frame in frames:
                told = keeper.take(frame, lambda: come)
                if "refused" in told:
                    break
        except ValueError as error:
            told = {"error": str(error)}
        lie = {path.relative_to(models).as_posix(): path for path in models.rglob("*") if path.is_file()}
        same = [name for name, path in lie.items() if path.read_bytes() == sent.read_bytes()]
        return {"told": told, "lie": sorted(lie), "same": same}

    return {
        "changed on the way": case(whole=b"other"),
        "too much": case(torch.cat([data, data])),
        "too little": case(data[:-5]),
        "no room": case(free=1 << 20),
        "a folder": case(kind="../../custom_nodes"),
        "a size": case(size="3"),
        "a digest": case(digest="../x"),
        "right": case(),
        "there": keeper.take({"part": "seek", **right}, None),
        "again": case(),
    }


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent)
    import families
    import frozen

    frozen.families = families
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
