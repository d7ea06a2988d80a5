"""Make GGUF files of a host test's model, as public tools do. Run by a Python that has gguf.

python make_gguf.py MODEL.safetensors ARCHITECTURE FOLDER

Vectors, and what is no weight of a layer, stay in single precision; where rows are too short for a kind, they are in
half.
"""

import os
import sys

import gguf
from safetensors.torch import load_file

KINDS = ("F16", "Q8_0", "Q4_0")


def main(model: str, architecture: str, folder: str) -> None:
    tensors = load_file(model)
    os.makedirs(folder, exist_ok=True)
    for name in KINDS:
        path = os.path.join(folder, f"{architecture}_{name}.gguf")
        writer = gguf.GGUFWriter(path=None, arch=architecture)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{name}"])
        for key, tensor in tensors.items():
            values, kind = tensor.float().numpy(), gguf.GGMLQuantizationType[name]
            if values.ndim == 1 or not key.endswith(".weight"):
                kind = gguf.GGMLQuantizationType.F32
            elif values.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
                kind = gguf.GGMLQuantizationType.F16
            writer.add_tensor(key, gguf.quants.quantize(values, kind), raw_dtype=kind)
        writer.write_header_to_file(path=path + ".part")
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(path + ".part", path)


if __name__ == "__main__":
    main(*sys.argv[1:])
