"""Writes a GGUF file of Llama-3-8B's shape with random weights: what a model of real size takes in memory, to load and to run.

    random_model.py OUT [--kind Q4_0|Q4_K|Q8_0|F16] [--layers 32]

Matrices are of the kind that is asked for and the output layer is Q6_K, as in most files of that size (F16 throughout is F16). Texts of
its tokenizer mean nothing: run it with token ids, as `cokv perf` and compare.py do."""

import argparse

import gguf
import numpy

HIDDEN, INTERMEDIATE, VOCABULARY, HEADS, KV_HEADS, HEAD_DIM, CONTEXT = 4096, 14336, 128256, 32, 8, 128, 8192
KINDS = {"Q4_0": 18, "Q4_K": 144, "Q6_K": 210, "Q8_0": 34}
BLOCKS = {"Q4_0": 32, "Q4_K": 256, "Q6_K": 256, "Q8_0": 32}
# Of the number that multiplies quants, so that weights have a standard deviation of about 0.02.
SCALES = {"Q4_0": [0.0043], "Q4_K": [0.0043 / 32, 0.0322 / 32], "Q6_K": [0.0011 / 16], "Q8_0": [0.00027]}


def shapes(layers: int):
    yield "token_embd.weight", (VOCABULARY, HIDDEN)
    for layer in range(layers):
        prefix = f"blk.{layer}."
        yield prefix + "attn_norm.weight", (HIDDEN,)
        yield prefix + "attn_q.weight", (HEADS * HEAD_DIM, HIDDEN)
        yield prefix + "attn_k.weight", (KV_HEADS * HEAD_DIM, HIDDEN)
        yield prefix + "attn_v.weight", (KV_HEADS * HEAD_DIM, HIDDEN)
        yield prefix + "attn_output.weight", (HIDDEN, HEADS * HEAD_DIM)
        yield prefix + "ffn_norm.weight", (HIDDEN,)
        yield prefix + "ffn_gate.weight", (INTERMEDIATE, HIDDEN)
        yield prefix + "ffn_up.weight", (INTERMEDIATE, HIDDEN)
        yield prefix + "ffn_down.weight", (HIDDEN, INTERMEDIATE)
    yield "output_norm.weight", (HIDDEN,)
    yield "output.weight", (VOCABULARY, HIDDEN)


def kind_of(name: str, shape: tuple, kind: str) -> str:
    if len(shape) == 1:
        return "F32"
    return "Q6_K" if name == "output.weight" and kind != "F16" else kind


def data(shape: tuple, kind: str, random) -> numpy.ndarray:
    if kind == "F32":
        return numpy.ones(shape, numpy.float32)
    if kind == "F16":
        return (random.standard_normal(shape, numpy.float32) * 0.02).astype(numpy.float16)
    blocks = shape[0] * shape[1] // BLOCKS[kind]
    raw = numpy.frombuffer(random.bytes(blocks * KINDS[kind]), numpy.uint8).reshape(blocks, KINDS[kind]).copy()
    halves = numpy.array(SCALES[kind], numpy.float16).view(numpy.uint8)
    if kind == "Q6_K":
        # Scales of the spans: 16 bytes before the block's own.
        raw[:, 192:208] = 16
        raw[:, 208:] = halves
    else:
        raw[:, : len(halves)] = halves
    if kind == "Q4_K":
        # Every scale and minimum is 32: six bits each, of the last four in two pieces.
        raw[:, 4:12], raw[:, 12:16] = 32 | 2 << 6, 0
    return raw.reshape(shape[0], -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--kind", default="Q4_0", choices=["Q4_0", "Q4_K", "Q8_0", "F16"])
    parser.add_argument("--layers", type=int, default=32)
    arguments = parser.parse_args()
    random = numpy.random.default_rng(1)

    writer = gguf.GGUFWriter(arguments.out, "llama")
    writer.add_block_count(arguments.layers)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(500_000.0)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    letters = [chr(code) for code in range(33, 127)]
    tokens = letters + ["ab"] + [f"<|{token}|>" for token in range(len(letters) + 1, VOCABULARY)]
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(letters) + 1) + [3] * (VOCABULARY - len(letters) - 1))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(VOCABULARY - 256)
    writer.add_eos_token_id(VOCABULARY - 247)

    all_shapes = list(shapes(arguments.layers))
    for name, shape in all_shapes:
        kind = kind_of(name, shape, arguments.kind)
        raw = gguf.GGMLQuantizationType[kind]
        if kind in KINDS:
            width = shape[1] // BLOCKS[kind] * KINDS[kind]
            writer.add_tensor_info(name, (shape[0], width), numpy.dtype(numpy.uint8), shape[0] * width, raw)
        else:
            size = 4 if kind == "F32" else 2
            dtype = numpy.dtype(numpy.float32 if kind == "F32" else numpy.float16)
            writer.add_tensor_info(name, shape, dtype, int(numpy.prod(shape)) * size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, shape in all_shapes:
        writer.write_tensor_data(data(shape, kind_of(name, shape, arguments.kind), random))
    writer.close()


if __name__ == "__main__":
    main()
