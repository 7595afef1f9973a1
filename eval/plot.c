/* plot.c: dots, axes, and labels where there is room. */
#include "plot.h"

#include <libxml/xmlwriter.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEFT = 76, TOP = 52, WIDTH = 860, HEIGHT = 470, LOW = -8, HIGH = 2, RADIUS = 4, LETTER = 6, LINE = 12 };
#define ZERO (LEFT + 26.0)         /* where a divergence of 0 is drawn */
#define SCALE (LEFT + 66.0)        /* where the logarithmic part begins */
#define END_ (LEFT + WIDTH - 70.0) /* and ends */
#define INFINITE (LEFT + WIDTH - 14.0)

typedef struct {
    double x0, y0, x1, y1;
} box;

static double x_of(double x) {
    if (!(x > 0)) return ZERO;
    if (!isfinite(x)) return INFINITE;
    double e = fmin(fmax(log10(x), LOW), HIGH);
    return SCALE + (END_ - SCALE) * (e - LOW) / (HIGH - LOW);
}
static double y_of(double y) { return TOP + 16 + (HEIGHT - 32) * (1 - y); }

#define S(text) ((const xmlChar *)(text))

static void line(xmlTextWriter *w, double x0, double y0, double x1, double y1, const char *colour, const char *dashes) {
    xmlTextWriterStartElement(w, S("line"));
    xmlTextWriterWriteFormatAttribute(w, S("x1"), "%.1f", x0);
    xmlTextWriterWriteFormatAttribute(w, S("y1"), "%.1f", y0);
    xmlTextWriterWriteFormatAttribute(w, S("x2"), "%.1f", x1);
    xmlTextWriterWriteFormatAttribute(w, S("y2"), "%.1f", y1);
    xmlTextWriterWriteAttribute(w, S("stroke"), S(colour));
    if (dashes) xmlTextWriterWriteAttribute(w, S("stroke-dasharray"), S(dashes));
    xmlTextWriterEndElement(w);
}

static void rectangle(xmlTextWriter *w, box b, const char *colour) {
    xmlTextWriterStartElement(w, S("rect"));
    xmlTextWriterWriteFormatAttribute(w, S("x"), "%.1f", b.x0);
    xmlTextWriterWriteFormatAttribute(w, S("y"), "%.1f", b.y0);
    xmlTextWriterWriteFormatAttribute(w, S("width"), "%.1f", b.x1 - b.x0);
    xmlTextWriterWriteFormatAttribute(w, S("height"), "%.1f", b.y1 - b.y0);
    xmlTextWriterWriteAttribute(w, S("fill"), S(colour));
    xmlTextWriterEndElement(w);
}

/* anchor: "start" "middle" "end" */
static void words(xmlTextWriter *w, double x, double y, const char *anchor, int size, const char *colour,
                  const char *text) {
    xmlTextWriterStartElement(w, S("text"));
    xmlTextWriterWriteFormatAttribute(w, S("x"), "%.1f", x);
    xmlTextWriterWriteFormatAttribute(w, S("y"), "%.1f", y);
    xmlTextWriterWriteAttribute(w, S("text-anchor"), S(anchor));
    xmlTextWriterWriteFormatAttribute(w, S("font-size"), "%d", size);
    xmlTextWriterWriteAttribute(w, S("fill"), S(colour));
    xmlTextWriterWriteString(w, S(text));
    xmlTextWriterEndElement(w);
}

static void circle(xmlTextWriter *w, double x, double y, bool filled, bool first, const char *title) {
    xmlTextWriterStartElement(w, S("circle"));
    xmlTextWriterWriteFormatAttribute(w, S("cx"), "%.1f", x);
    xmlTextWriterWriteFormatAttribute(w, S("cy"), "%.1f", y);
    xmlTextWriterWriteFormatAttribute(w, S("r"), "%d", RADIUS);
    xmlTextWriterWriteAttribute(w, S("fill"), S(filled ? "#4477aa" : "#ffffff"));
    xmlTextWriterWriteAttribute(w, S("fill-opacity"), S(filled ? "0.75" : "1"));
    xmlTextWriterWriteAttribute(w, S("stroke"), S(first ? "#000000" : filled ? "#225588" : "#cc3311"));
    if (first) xmlTextWriterWriteAttribute(w, S("stroke-width"), S("2"));
    if (title) xmlTextWriterWriteElement(w, S("title"), S(title));
    xmlTextWriterEndElement(w);
}

static void axes(xmlTextWriter *w, double band, const char *x_name, const char *y_name) {
    const double bottom = TOP + HEIGHT;
    if (band > 0) {
        rectangle(w, (box){LEFT, TOP, x_of(band), bottom}, "#f2f2ee");
        words(w, x_of(band) - 4, bottom - 6, "end", 11, "#777777", "legal variants");
    }
    for (int e = LOW; e <= HIGH; e++) {
        char name[32];
        double x = SCALE + (END_ - SCALE) * (e - LOW) / (HIGH - LOW);
        snprintf(name, sizeof name, e == 0 ? "1" : e == 1 ? "10" : e == 2 ? "100" : "1e%d", e);
        line(w, x, TOP, x, bottom, "#dddddd", NULL);
        words(w, x, bottom + 18, "middle", 13, "#000000", name);
    }
    line(w, ZERO, TOP, ZERO, bottom, "#dddddd", "3 3");
    words(w, ZERO, bottom + 18, "middle", 13, "#000000", "0");
    line(w, INFINITE, TOP, INFINITE, bottom, "#dddddd", "3 3");
    words(w, INFINITE, bottom + 18, "middle", 13, "#000000", "NaN");
    for (int i = 0; i <= 10; i += 2) {
        char name[32];
        snprintf(name, sizeof name, "%.1f", i / 10.0);
        line(w, LEFT, y_of(i / 10.0), LEFT + WIDTH, y_of(i / 10.0), "#dddddd", NULL);
        words(w, LEFT - 8, y_of(i / 10.0) + 4, "end", 13, "#000000", name);
    }
    words(w, LEFT + WIDTH / 2.0, bottom + 40, "middle", 13, "#000000", x_name);
    words(w, LEFT, TOP - 8, "start", 13, "#000000", y_name);
}

/* ---- labels ----------------------------------------------------------------------------------------------------- */

static bool meet(box a, box b) { return a.x0 < b.x1 && b.x0 < a.x1 && a.y0 < b.y1 && b.y0 < a.y1; }

static box around(const hm_dot *d) {
    double x = x_of(d->x), y = y_of(d->y), r = RADIUS + 1;
    return (box){x - r, y - r, x + r, y + r};
}

/* Where a label may stand: right of its dot, left, above, below, then the same a line further up or down; and, of a
 * dot that comes first, further up still, beside a leader. */
enum { NEAR = 8, FAR = 60 };

static box place(const hm_dot *d, int which) {
    double x = x_of(d->x), y = y_of(d->y), width = LETTER * (double)strlen(d->label), gap = RADIUS + 3;
    double left = x - width / 2, low = y; /* left edge, and middle line */
    if (which >= NEAR) {
        static const double shift[] = {-0.5, 0, -1};
        left = x + width * shift[which % 3];
        low = y - 2 * LINE - LINE * (double)((which - NEAR) / 3);
    } else {
        double further = which < 4 ? 0 : LINE;
        if (which % 4 == 0) left = x + gap, low = y - further;
        if (which % 4 == 1) left = x - gap - width, low = y + further;
        if (which % 4 == 2) low = y - gap - LINE / 2.0 - further;
        if (which % 4 == 3) low = y + gap + LINE / 2.0 + further;
    }
    return (box){left, low - LINE / 2.0, left + width, low + LINE / 2.0};
}

static bool free_for(box b, const hm_dot *dots, int64_t n, const box *taken, int64_t count) {
    if (b.x0 < LEFT || b.x1 > LEFT + WIDTH || b.y0 < TOP || b.y1 > TOP + HEIGHT) return false;
    for (int64_t i = 0; i < n; i++)
        if (meet(b, around(&dots[i]))) return false;
    for (int64_t i = 0; i < count; i++)
        if (meet(b, taken[i])) return false;
    return true;
}

static void labels(xmlTextWriter *w, const hm_dot *dots, int64_t n, box *taken) {
    int64_t count = 0;
    for (int round = 0; round < 2; round++)
        for (int64_t i = 0; i < n; i++) {
            if (dots[i].first != (round == 0)) continue;
            for (int which = 0; which < (dots[i].first ? FAR : NEAR); which++) {
                box b = place(&dots[i], which);
                if (!free_for(b, dots, n, taken, count)) continue;
                taken[count++] = b;
                if (which >= NEAR)
                    line(w, x_of(dots[i].x), y_of(dots[i].y) - RADIUS, x_of(dots[i].x), b.y1, "#999999", NULL);
                /* letters may be narrower than LETTER: the end towards the dot is the one that is fixed */
                double x = x_of(dots[i].x);
                bool left = b.x1 <= x, right = b.x0 >= x;
                words(w,
                      left    ? b.x1
                      : right ? b.x0
                              : (b.x0 + b.x1) / 2,
                      b.y1 - 2.5,
                      left    ? "end"
                      : right ? "start"
                              : "middle",
                      10, dots[i].first ? "#000000" : "#555555", dots[i].label);
                break;
            }
        }
}

char *hm_plot_svg(const hm_dot *dots, int64_t n, double band, const char *title, const char *x_name, const char *y_name,
                  const char *filled_name, const char *hollow_name) {
    xmlBuffer *buffer = xmlBufferCreate();
    xmlTextWriter *w = buffer ? xmlNewTextWriterMemory(buffer, 0) : NULL;
    box *taken = calloc((size_t)n + 1, sizeof *taken);
    char *text = NULL;
    if (w && taken) {
        xmlTextWriterSetIndent(w, 1);
        xmlTextWriterStartElement(w, S("svg"));
        xmlTextWriterWriteAttribute(w, S("xmlns"), S("http://www.w3.org/2000/svg"));
        xmlTextWriterWriteFormatAttribute(w, S("width"), "%d", LEFT + WIDTH + 24);
        xmlTextWriterWriteFormatAttribute(w, S("height"), "%d", TOP + HEIGHT + 82);
        xmlTextWriterWriteFormatAttribute(w, S("viewBox"), "0 0 %d %d", LEFT + WIDTH + 24, TOP + HEIGHT + 82);
        xmlTextWriterWriteAttribute(w, S("font-family"), S("sans-serif"));
        rectangle(w, (box){0, 0, LEFT + WIDTH + 24, TOP + HEIGHT + 82}, "#ffffff");
        words(w, LEFT, 22, "start", 16, "#000000", title);
        axes(w, band, x_name, y_name);
        for (int64_t i = 0; i < n; i++)
            circle(w, x_of(dots[i].x), y_of(dots[i].y), dots[i].filled, dots[i].first, dots[i].label);
        labels(w, dots, n, taken);
        circle(w, LEFT + 8, TOP + HEIGHT + 62, true, false, NULL);
        words(w, LEFT + 18, TOP + HEIGHT + 66, "start", 12, "#000000", filled_name);
        circle(w, LEFT + 320, TOP + HEIGHT + 62, false, false, NULL);
        words(w, LEFT + 330, TOP + HEIGHT + 66, "start", 12, "#000000", hollow_name);
        xmlTextWriterEndElement(w);
        if (xmlTextWriterEndDocument(w) >= 0 && xmlTextWriterFlush(w) >= 0)
            text = strdup((const char *)xmlBufferContent(buffer));
    }
    free(taken);
    if (w) xmlFreeTextWriter(w);
    if (buffer) xmlBufferFree(buffer);
    return text;
}
