/* plot.h: a picture of many dots, as SVG: a share against a divergence on a logarithmic axis. */
#ifndef HM_EVAL_PLOT_H
#define HM_EVAL_PLOT_H

#include <hallmark/hallmark.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    double x, y;        /* x: at least 0, or infinite; y: 0 to 1 */
    const char *label;  /* written beside the dot if nothing is in the way */
    bool filled, first; /* first: its label comes before all others */
} hm_dot;

/* Dots at 0, or below the axis, are at its left end, infinite ones at its right end; band: where noise ends on the x
 * axis (0: not drawn). NULL if memory is short; else free() it. */
char *hm_plot_svg(const hm_dot *dots, int64_t n, double band, const char *title, const char *x_name, const char *y_name,
                  const char *filled_name, const char *hollow_name);

#endif
