/* both.h: what a CUDA kernel compiles from the same source as the host, so that it has the same bits. */
#ifndef HM_BOTH_H
#define HM_BOTH_H

#ifdef __CUDACC__
#define HM_BOTH [[maybe_unused]] static __device__ __noinline__
#define HM_BOTH_LOCAL [[maybe_unused]] static __device__ __noinline__
#define HM_BOTH_INLINE [[maybe_unused]] static __device__ __forceinline__
#define HM_BOTH_TABLE static __device__ const
#define HM_LEADING_ZEROS __clzll
#else
#define HM_BOTH
#define HM_BOTH_LOCAL static
#define HM_BOTH_INLINE static inline
#define HM_BOTH_TABLE static const
#define HM_LEADING_ZEROS __builtin_clzll
#endif

#endif
