/* isa.h: which instruction set the host loops are compiled for. A loop is written once as a HM_INLINE function and
 * wrapped once for each level; no level contracts a*b+c, so that all give the same bits. */
#ifndef HM_ISA_H
#define HM_ISA_H

#define HM_INLINE static inline __attribute__((always_inline))

typedef enum { HM_ISA_BASE = 0, HM_ISA_AVX2, HM_ISA_AVX512 } hm_isa_level;
hm_isa_level hm_isa_now(void);

#if defined(__x86_64__)
#define HM_AVX2 __attribute__((target("avx2")))
#define HM_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#else
#define HM_AVX2
#define HM_AVX512
#endif

/* Defines  static void name(params)  which runs body(args) as compiled for the level in force. */
#define HM_DISPATCH(name, params, body, args)                 \
    static void name##_base params { body args; }             \
    HM_AVX2 static void name##_avx2 params { body args; }     \
    HM_AVX512 static void name##_avx512 params { body args; } \
    static void name params {                                 \
        switch (hm_isa_now()) {                               \
            case HM_ISA_AVX512:                               \
                name##_avx512 args;                           \
                break;                                        \
            case HM_ISA_AVX2:                                 \
                name##_avx2 args;                             \
                break;                                        \
            default:                                          \
                name##_base args;                             \
        }                                                     \
    }

#endif
