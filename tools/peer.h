/* peer.h: somebody else's time for a call, as a column of `hallmark bench --impl cuda --peer PROGRAM`.
 *
 * The program is started once. It reads lines: "case FILE", and answers "ready NAME" or "declined REASON"; "time", and
 * answers the microseconds of one call of that case. It ends with its input. FILE has the case as JSON (docs/cuda.md
 * has an example):
 *     op, case       its name, and the canonical line
 *     sets, calls    how many sets of buffers are used in turn, and how many calls a graph has
 *     args           by name: direction, dtype, shape, stride (elements), and where its bytes are: file, offset (bytes,
 *                    of element 0), buffer (arguments with the same number share memory); outputs hold poison
 *     params         scalars as numbers, modes as words */
#ifndef HM_PEER_H
#define HM_PEER_H

#include "../certify/call.h"

#define HM_PEER_TORCH "torch" /* in place of a program: peer_torch.py, which lies beside this one */

typedef struct hm_peer hm_peer;
/* NULL with a sentence in why if it cannot be started. */
hm_peer *hm_peer_open(const char *program, char *why, size_t size);
/* false, with a sentence in why, if it declines or is gone (see hm_peer_gone). The call has to be there until the next
 * one. */
bool hm_peer_case(hm_peer *p, const hm_call *call, int sets, int calls, char *why, size_t size);
const char *hm_peer_name(const hm_peer *p); /* as it said itself */
bool hm_peer_time(hm_peer *p, double *seconds, char *why, size_t size);
/* peer_torch.py alone answers "product bf16" and "product fp8": the time of a product of two matrices of
 * HM_PEER_PRODUCT^2 roughly normal values, in whichever way torch does it fastest, once it has done so for 0.1 s. */
enum { HM_PEER_PRODUCT = 8192 };
bool hm_peer_product(hm_peer *p, bool fp8, double *seconds, char *why, size_t size);
bool hm_peer_gone(const hm_peer *p); /* it said nothing: it has to be opened again */
void hm_peer_close(hm_peer *p);      /* NULL is fine */

/* Interleaved passes of both: which one is faster. */
enum { HM_PEER_PASSES = 5 };
typedef struct {
    double own, peer;               /* medians, in seconds */
    double own_spread, peer_spread; /* largest less smallest */
    int faster;                     /* 1: own, -1: the peer, by more than either spread; else 0, equal */
} hm_peer_result;
hm_peer_result hm_peer_compare(const double own[HM_PEER_PASSES], const double peer[HM_PEER_PASSES]);

#endif
