/* Every public bug that we know of, and where it ends. A bug without a reason here is re-created by the rows of the
 * fault table that name it in `covers`: the same mistake, made in an op of this library. */
#include <stddef.h>

#include "../faults.h"

#define CACHE "hm_rope_cache is an object and no op: tests/unit/rope_cache.c makes this mistake and sees it caught"
#define CACHE_PATHS \
    "hm_rope_cache has no other path and no state to overwrite: whoever asks gets the one copy in the dtype asked for"
#define INDEXER "the sparse indexer is not in the library yet"
#define TOPK "top-k is not in the library yet"
#define ATTENTION "attention is not in the library yet"
#define FP8 "no op of the library reads or writes fp8 yet"
#define MATMUL "matrix products are not in the library"
#define MOE "routing of experts is not in the library"
#define HADAMARD "the Hadamard transform is not in the library yet"
#define CHECKER "a tolerance of a checker; this judge has none to get wrong"

static const hm_known_bug bugs[] = {
    /* A: a rounding point missing, extra or moved; a result in the wrong dtype */
    {"A2", "RMSNorm: x*rs is not rounded before the weight", "vllm#42325; vllm#42379; vllm#40860", NULL},
    {"A3", "RMSNorm, fused add, norm and quantise: x*rs is rounded where it should not be", "vllm-xpu-kernels#536",
     NULL},
    {"A5", "RMSNorm of a library: x*rs is not rounded before the weight", "sglang#2258; pytorch#158699", NULL},
    {"A6", "q norm with fp8 store: the 16-bit rounding between them is gone", "TensorRT-LLM#14464", NULL},
    {"A7", "norm with per-token fp8 store: f32 between them instead of bf16", "vllm#51393; vllm#46658", NULL},
    {"A9", "GemmaRMSNorm: the residual comes back unrounded, in f32", "vllm#38998; vllm#38780", NULL},
    {"A12", "compiled RMSNorm: the compiler drops 16-bit casts", "pytorch#158699; pytorch#141727", NULL},
    {"A13", "compiled rotary embedding: products stay unrounded", "pytorch#159239", NULL},
    {"A14", "merge of attention parts: each part is rounded to bf16 first", "TransformerEngine#821", ATTENTION},
    /* B: the accumulator's dtype */
    {"B3", "flash attention: f16 accumulator", "llama.cpp#13975", ATTENTION},
    {"B4", "flash attention: f16 accumulator without an offset", "ik_llama.cpp#1196", ATTENTION},
    /* C: an intermediate, a parameter or a table in the wrong dtype */
    {"C1", "rotary table: inv_freq in 16 bits", "gpt-neox#1003", NULL},
    {"C3", "rotary table: positions in bf16", "candle#3520", NULL},
    {"C4", "rotary embedding: inv_freq in bf16, positions in f32", "sglang-jax#1472", NULL},
    {"C5", "positions counted in bf16", "gpt-neox#1016; DeepSpeed#4932; verl#4170", NULL},
    {"C6", "rotary table: cos and sin kept in 16 bits", "flashinfer#585; vllm#41113; vllm#42833; sglang#3134", NULL},
    {"C8", "GemmaRMSNorm: 1 + weight added in bf16", "vllm#29810; vllm#53203", NULL},
    {"C9", "router: correction bias stored in bf16", "sglang#31213; vllm#50761; vllm#14027; sglang#30323", MOE},
    {"C11", "all-reduce, norm and quantise: an f32 weight read as bf16", "vllm#48324", NULL},
    {"C12", "rotary embedding in decode: position times frequency in bf16", "mlir-air#1610", NULL},
    /* D: layout, stride, page index, row mapping */
    {"D1", "sparse indexer cache: written in tiles, read in rows", "vllm#43781", NULL},
    {"D2", "rotary, concat and cache: head stride of the nope part ignored", "aiter#3841", NULL},
    {"D4", "paged logits: the wrong output stride", "aiter#1815", NULL},
    {"D5", "fp8 logits: one swizzle for every head size", "DeepGEMM#379; DeepGEMM#434", NULL},
    {"D6", "paged logits: the offset inside a block is dropped", "aiter#5591", NULL},
    {"D7", "paged logits: wrong base past the first chunk", "vllm#39303", NULL},
    {"D8", "MLA decode: padded page stride ignored", "vllm#37032; vllm#45111", NULL},
    {"D9", "MLA decode: page size ignored", "aiter#2996; aiter#3095", NULL},
    {"D11", "indexer slots: stale tokens per block", "TensorRT-LLM#16219", NULL},
    {"D13", "rotary embedding on a slice: x taken to be contiguous", "vllm#16658; vllm#17091; vllm#18046; sglang#20559",
     NULL},
    {"D15", "matmul epilogue: row scale indexed by output slot", "composable_kernel#3765; rocm-libraries#11700",
     MATMUL},
    {"D16", "NVFP4 cache: scales permuted by the writer alone", "vllm#50084; vllm#50085", NULL},
    {"D17", "indexer: start of the keys taken from the query offset", "sglang#12583; sglang#12582; sglang#11629", NULL},
    {"D18", "fp8 matmul: one scale slice for four blocks", "TIRx-kernels#5", MATMUL},
    {"D19", "draft rows: request index of the first step reused", "TensorRT-LLM#17240; TensorRT-LLM#16925", NULL},
    {"D20", "batched matmul: row stride passed as batch stride", "transformers#47331; kernels-community#1038", NULL},
    /* E: partial copy, partial coverage, tails */
    {"E1", "concat_mla_q: a fixed number of bytes copied whatever the dtype", "vllm#37892", NULL},
    {"E2", "fused q/k norm and rotary: rotary_dim taken from head_size", "vllm#43676", NULL},
    {"E3", "rotary embedding: only the first head is done", "aprender#2079", NULL},
    {"E5", "LayerNorm: masked lanes of the tail counted in", "Liger-Kernel#519; mojo_opset#347", NULL},
    {"E7", "sliding-window attention: result left in a temporary", "vllm-ascend#6558", NULL},
    /* F: a missing in-place effect, aliasing, a lost write */
    {"F1", "indexer: rotary result dropped behind an in-place contract", "vllm#43781", NULL},
    {"F3", "add and RMSNorm: output written over an input that is still read", "ik_llama.cpp#916", NULL},
    {"F4", "rotary wrapper: result dropped, or copied with a fixed width", "bytedance-iaas/vllm#59", NULL},
    {"F5", "rotary embedding: an input that had to be kept is overwritten", "unsloth#5001", NULL},
    /* G: eps */
    {"G1", "RMSNorm: eps hard-coded", "cutlass#1112; tvm#15856", NULL},
    {"G3", "RMSNorm fused with mul: eps of another op", "llama.cpp#14545", NULL},
    {"G4", "RMSNorm: eps outside the root", "tilelang#1243", NULL},
    {"G5", "RMSNorm: default eps from the dtype of x", "pytorch#189581; pytorch#173039", NULL},
    /* H: scales */
    {"H1", "per-group fp8: quantised with one scale, another stored", "sglang#28418; sglang#26766; sglang#28307", NULL},
    {"H2", "weights in fp8: only the stored inverse scale is rounded", "transformers#46763", NULL},
    {"H3", "fp8 linear: scales of quantised data rounded up", "transformers#47030", NULL},
    {"H6", "activation quantiser: no floor under amax", "kernels-community#680; kernels-community#681", NULL},
    {"H7", "cache quantiser: zero amax gives exponent 0", "aiter#4195", NULL},
    {"H8", "cache writer: 448 as divisor of a type that ends at 240", "vllm#32976", NULL},
    {"H9", "indexer keys: one flavour of e4m3 written, the other read", "vllm#52109", NULL},
    {"H10", "flavour of fp8 taken from the build, not from the device", "aiter#3807", NULL},
    {"H11", "attention with fp8 queries: key and value scales skipped", "vllm#42580", NULL},
    {"H13", "tile scales: f32 written, exponent only read", "vllm#49435; vllm#54563", NULL},
    {"H14", "cache scales loaded but left at 1", "sglang#20705; vllm#34863", NULL},
    {"H16", "attention: fp8 scratch output without a scale", "vllm#55670", NULL},
    {"H17", "cache writer: multiplied by the scale instead of divided", "vllm-xpu-kernels#475", NULL},
    {"H18", "attention: value scale never applied", "Megatron-Bridge#4155", ATTENTION},
    /* I: conversion, saturation, NaN and inf */
    {"I1", "software fp8 cast: the top octave saturates", "sglang#40581", NULL},
    {"I2", "e4m3 cast: NaN above 464 where saturation is meant", "pytorch#178817; pytorch#160488; ml_dtypes#400", NULL},
    {"I3", "casts: ties rounded away from zero", "triton#5925; triton#6102; triton#11753", NULL},
    {"I5", "16-bit product: the store truncates", "triton#11217", NULL},
    {"I6", "fp8 attention: probabilities beyond 448", "flash-attention#2578", ATTENTION},
    {"I8", "sparse MLA: exp2(-inf + inf) is not guarded", "vllm#48364", ATTENTION},
    {"I9", "merge of attention parts: both parts empty", "vllm#27491; vllm#15492", ATTENTION},
    {"I10", "last page: masked by adding -inf or by a product with 0", "flashinfer#941; sglang#32477; Wan2GP#1628",
     NULL},
    {"I11", "flash attention: maximum starts at -inf with a masked block", "llama.cpp#12776", ATTENTION},
    {"I12", "padded rows: NaN shares a quantisation tile", "vllm#38436", NULL},
    /* J: boundaries */
    {"J2", "paged decode: no mask at the end of the context", "flashinfer#3716", ATTENTION},
    {"J3", "last key of a full block dropped", "MinivLLM#76; MinivLLM#83; vllm#31282", NULL},
    {"J4", "sliding window one key too wide", "transformers#29623; vllm#3385; Megatron-Bridge#2656; sglang#26147",
     NULL},
    {"J5", "empty batch: a launch with an empty grid", "sglang#32065; sglang#23636", NULL},
    {"J6", "logits metadata: binary search not clamped", "DeepGEMM#353; TensorRT-LLM#14940; vllm#51182", NULL},
    {"J8", "rotary table too short for the position", "vllm-ascend#1266; pegainfer#220; mlc-llm#780", NULL},
    {"J9", "padding slot -1 used as an index", "vllm#43810; vllm#43869", NULL},
    {"J10", "cache writer: loop over keys instead of slots", "vllm#13922", NULL},
    {"J11", "top-k: negative length compared as unsigned", "sglang#31123", NULL},
    /* K: offsets that overflow or are cut */
    {"K1", "MLA decode: page times stride in 32 bits", "vllm#47671", NULL},
    {"K3", "attention gather: 32-bit index times stride", "vllm#50427", NULL},
    {"K4", "chunk kernels: 32-bit base of a block pointer", "fla#1080; fla#1082", NULL},
    {"K5", "fused q/k norm: token times row width in int", "vllm#43166", NULL},
    {"K6", "paged attention: index cut to 16 bits", "aiter#3062", NULL},
    {"K7", "cache access: location times stride in 32 bits", "tokenspeed#501; aiter#4474; sglang#20389", NULL},
    /* L: races, missing barriers, memory that nobody wrote */
    {"L1", "group norm and quantise: reduction without a barrier", "vllm#54111", NULL},
    {"L2", "norms: reduction buffer reused without a barrier", "pegainfer#411; sparkinfer#705; hipfire#575", NULL},
    {"L3", "quantised attention: no barrier after a copy", "ninfer-3090#49", ATTENTION},
    {"L4", "Hadamard kernel: missing dependency between grids", "llama.cpp#23690", HADAMARD},
    {"L6", "all-reduce and RMSNorm: a residual made of unwritten memory", "vllm#41972", NULL},
    {"L7", "split-KV merge reads slots that nobody wrote", "TensorRT-LLM#18754; TensorRT-LLM#18755; vllm#19784",
     ATTENTION},
    {"L8", "fused norm: one block normalises in place what others still read", "1bit-MONSTER#870", NULL},
    /* M: top-k */
    {"M1", "threshold bin capped, candidates dropped", "vllm#51782; vllm#55314", NULL},
    {"M3", "ties resolved by arrival", "sglang#31115; flashinfer#2584; omlx#2243; Megatron-LM#7169", NULL},
    {"M4", "indices in another order on each rank", "aiter#4415", TOPK},
    {"M5", "padded -inf lanes counted as candidates", "cudnn-frontend#410", NULL},
    {"M6", "indexer score: ReLU or head weights left out", "mlx-lm#531", INDEXER},
    {"M8", "ties by construction: block scores copied per cell", "llama.cpp#28497", NULL},
    /* N: dependence on the batch or on the order */
    {"N2", "all-reduce and RMSNorm: order of the sum depends on the size", "vllm#51290; vllm#45683", NULL},
    {"N3", "fp8 decode: rows of a large batch use another row's metadata", "aiter#3013", NULL},
    {"N4", "flash attention: wrong column with several sequences", "llama.cpp#7903", ATTENTION},
    /* O: approximate math */
    {"O2", "fast-math build: NaN and inf assumed away", "candle#3309; llama.cpp#25495; llama.cpp#26696", NULL},
    {"O3", "rsqrt with too few good bits", "pypto-lib#361", NULL},
    {"O4", "attention: cheap exp", "tt-metal#51927", ATTENTION},
    {"O5", "f32 products in TF32", "triton#3498; triton#9080; FlagGems#6322", NULL},
    /* P: semantics of rotary embedding and attention scale */
    {"P1", "indexer: interleaved pairing where halves are meant", "vllm#28968; vllm-ascend#4641; sglang#30342", NULL},
    {"P2", "indexer: pairing flag ignored", "transformers#46842", NULL},
    {"P3", "mRoPE: chunked sections where interleaved ones are meant", "vllm-ascend#12820; vllm-gaudi#1437", NULL},
    {"P4", "rotary embedding: evens and odds concatenated", "vllm-metal#44", NULL},
    {"P5", "YaRN: attention factor squared", "sglang#33558; TensorRT-LLM#16379", NULL},
    {"P6", "YaRN: mscale ratio ignored", "vllm#48621; vllm#48623; sglang#31232", NULL},
    {"P7", "YaRN: attention factor dropped", "vllm#46280; vllm#48351; prime-rl#2802; mlx-lm#1507", NULL},
    {"P9", "Llama 3: frequency factors not applied", "ik_llama.cpp#2291", NULL},
    {"P10", "LongRoPE: factors chosen by allocated length", "llama.cpp#24823; vllm#27431", NULL},
    {"P11", "MLA: mscale left out of the softmax scale", "mobius#548; Megatron-LM#1429; imp#880", ATTENTION},
    {"P12", "Hadamard: queries rotated, keys not", "ATOM#1507; vllm#55459", HADAMARD},
    /* Q: merging partial attention states */
    {"Q1", "base-2 log-sum-exp fed to a base-e merge", "vllm#52796; vllm#28840; sglang#35045", ATTENTION},
    {"Q2", "base of the log-sum-exp declared wrongly", "vllm#47079", ATTENTION},
    /* R: defects of checkers */
    {"R1", "reference so small that anything passes", "tritonbench#1145", NULL},
    {"R2", "zeros pass where outputs are small", "KernelBench#165", NULL},
    {"R3", "NaN in the reference accepts anything", "cubecl#1070", NULL},
    {"R4", "absolute tolerance below half an ulp of the outputs", "sglang#35795", CHECKER},
    {"R6", "right only for the shapes that are tested", "DeepGEMM#379; aiter#4363; imp#1325; transformers#35691", NULL},
    /* rope: dtype of the rotary table */
    {"rope.R1", "the table is converted whole on every call", "vllm#41113", NULL},
    {"rope.R2", "a 16-bit table read as f32", "vllm#41113", NULL},
    {"rope.R3", "an f32 table read as 16 bits", "vllm#41113", NULL},
    {"rope.R4", "an f32 table rounded to 16 bits first", "vllm#41113", NULL},
    {"rope.R5", "every operation rounded to 16 bits", "vllm#41113", NULL},
    {"rope.R6", "second output computed from the overwritten first", "vllm#41113", NULL},
    {"rope.R7", "inverse ignored, or applied to the cosine", "vllm#41113", NULL},
    {"rope.R8", "interleaved pairing with the wrong table index", "vllm#41113", NULL},
    {"rope.R9", "rope_dim_offset ignored", "vllm#41113", NULL},
    {"rope.R10", "rotary width taken from head_size", "vllm#41113", NULL},
    /* cache: the precomputed bf16 table */
    {"cache.C1", "master table replaced by its bf16 copy", "vllm#42833", CACHE},
    {"cache.C2", "bf16 table returned for other dtypes", "vllm#42833", CACHE},
    {"cache.C3", "fast path taken outside its conditions", "vllm#42833", CACHE_PATHS},
    {"cache.C4", "bf16 copy made by truncation", "vllm#42833", CACHE},
    {"cache.C5", "bf16 copy stale after the master changed", "vllm#42833", CACHE},
    {"cache.C6", "dtype of the copy not checked", "vllm#42833", CACHE},
    {"cache.C7", "device of the copy ignored", "vllm#42833", CACHE},
    {"cache.C8", "copy made although the master is bf16", "vllm#42833", CACHE},
    /* concat: concat_mla_q */
    {"concat.Q1", "f32: only 128 bytes of the rope part copied", "vllm#37892", NULL},
    {"concat.Q2", "wider nope part: rope written at 512", "vllm#37892", NULL},
    {"concat.Q3", "rope part addressed as contiguous", "vllm#37892", NULL},
    {"concat.Q4", "16 bits: twice too many rope elements", "vllm#37892", NULL},
    {"concat.Q5", "offsets in 32 bits", "vllm#37892", NULL},
    /* indexer: the sparse indexer */
    {"indexer.S1a", "tiled writer and gather at block size 1", "vllm#43781", NULL},
    {"indexer.S1b", "tiles read as rows", "vllm#43781", NULL},
    {"indexer.S1c", "rows read as tiles", "vllm#43781", NULL},
    {"indexer.S1d", "tiles in blocks that are no multiple of 16", "vllm#43781", NULL},
    {"indexer.S2", "rotary result discarded", "vllm#43781", INDEXER},
    {"indexer.S3", "the wrong half of the head rotated", "vllm#43781", INDEXER},
    {"indexer.S4", "the other pairing", "vllm#43781", INDEXER},
    {"indexer.S5", "rotary and norm or quantiser in the wrong order", "vllm#43781", INDEXER},
    {"indexer.S6", "divisor of the other flavour of e4m3", "vllm#43781", NULL},
    /* gemma: Gemma's RMSNorm and its residual */
    {"gemma.G1m", "residual returned in f32, unrounded", "vllm#38998", NULL},
    {"gemma.G2m", "an f32 residual read as 16 bits by the next op", "vllm#38998", NULL},
    {"gemma.G3m", "x*rs rounded before 1 + weight", "vllm#38998", NULL},
    {"gemma.G4m", "1 + weight rounded", "vllm#38998", NULL},
    {"gemma.G5m", "weight in place of 1 + weight", "vllm#38998", NULL},
    {"gemma.G6m", "an f32 weight reinterpreted as bf16", "vllm#38998", NULL},
    {"gemma.G7m", "output promoted to f32 by an f32 weight", "vllm#38998", NULL},
    {"gemma.G8m", "f32 x rounded to the 16-bit dtype of the weight", "vllm#38998; vllm#38780; vllm#39014", NULL},
    {"gemma.G9m", "norm reads the other of the rounded and unrounded sum", "vllm#38998", NULL},
    {"gemma.G10m", "variance of the rounded sum, scaling of the unrounded", "vllm#38998", NULL},
    {"gemma.G11m", "eps outside the root, or before the mean", "vllm#38998", NULL},
    {"gemma.G12m", "mean over hidden where variance_size is smaller", "vllm#38998", NULL},
    {"gemma.G13m", "residual not updated, or updated with the norm", "vllm#38998", NULL},
    /* trap: found while reading sources */
    {"trap.1", "rotary: keys addressed with the head stride of queries", "", NULL},
    {"trap.2", "rotary table that loses bits going from f32 to bf16 and back", "vllm#42833", CACHE},
    {"trap.3", "concat_mla_q with a nope part of 1024", "vllm#37892", NULL},
    {"trap.4", "indexer writer with f32 keys, or groups that are not 128", "", NULL},
    {"trap.5", "indexer writer that takes blocks to be dense", "", NULL},
    {"trap.6", "gather: padding rows", "", NULL},
    {"trap.7", "torch reference with a score rounded to bf16", "", INDEXER},
    {"trap.8", "paged torch fallback: layout for several tokens, or for tiles", "", NULL},
    {"trap.9", "top-k: negative row length", "", NULL},
    {"trap.10", "cache scales of any value against readers of powers of two", "", FP8},
    {"trap.11", "flat and tiled layouts mixed; request index out of range",
     "vllm#52109; vllm#50455; vllm#45782; vllm#47327", NULL},
    {"trap.12", "floor of the query scale differs between producers", "", NULL},
    {"trap.13", "skipped slots must leave their neighbours alone", "", NULL},
    {"trap.14", "ReLU after the multiplication by the weight", "", INDEXER},
    {"trap.15", "limit of the context one too small", "", NULL},
    {"trap.16", "top-k with absolute columns", "", NULL},
};

int hm_known_bug_count(void) { return sizeof bugs / sizeof *bugs; }

const hm_known_bug *hm_known_bug_at(int i) { return i >= 0 && i < hm_known_bug_count() ? &bugs[i] : NULL; }
