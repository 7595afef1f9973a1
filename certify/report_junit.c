/* report_junit.c: junit.xml, which says what the certificate says to machines that run tests. */
#include <libxml/xmlwriter.h>
#include <string.h>

#include "report_rows.h"

#define XML(s) ((const xmlChar *)(s))

static void junit_row(xmlTextWriter *w, const report_row *row) {
    const hm_verdict *v = &row->v;
    const char *outcome = hm_outcome_name(v->outcome);
    xmlTextWriterStartElement(w, XML("testcase"));
    xmlTextWriterWriteAttribute(w, XML("classname"), XML(row->op->name));
    xmlTextWriterWriteAttribute(w, XML("name"), XML(row->line));
    if (v->outcome != HM_PASS) {
        bool skipped = v->outcome == HM_SKIPPED || v->outcome == HM_DECLINED;
        xmlTextWriterStartElement(w, XML(skipped ? "skipped" : "failure"));
        if (!skipped) xmlTextWriterWriteAttribute(w, XML("type"), XML(outcome));
        xmlTextWriterWriteAttribute(w, XML("message"), XML(v->why));
        if (!skipped) xmlTextWriterWriteString(w, XML(row->repro));
        xmlTextWriterEndElement(w);
    }
    xmlTextWriterEndElement(w);
}

char *hm_report_junit(const hm_report *r) {
    xmlBuffer *buffer = xmlBufferCreate();
    xmlTextWriter *w = buffer ? xmlNewTextWriterMemory(buffer, 0) : NULL;
    char *text = NULL;
    if (w) {
        const int64_t *n = r->total;
        xmlTextWriterSetIndent(w, 1);
        xmlTextWriterStartDocument(w, NULL, "UTF-8", NULL);
        xmlTextWriterStartElement(w, XML("testsuite"));
        xmlTextWriterWriteFormatAttribute(w, XML("name"), "hallmark %s %s", r->impl, r->suite);
        xmlTextWriterWriteFormatAttribute(w, XML("tests"), "%lld", (long long)r->nrows);
        xmlTextWriterWriteFormatAttribute(w, XML("failures"), "%lld",
                                          (long long)(n[HM_FAIL] + n[HM_OUT_OF_CLASS] + n[HM_VACUOUS]));
        xmlTextWriterWriteAttribute(w, XML("errors"), XML("0"));
        xmlTextWriterWriteFormatAttribute(w, XML("skipped"), "%lld", (long long)(n[HM_SKIPPED] + n[HM_DECLINED]));
        for (int64_t i = 0; i < r->nrows; i++) junit_row(w, &r->row[i]);
        if (xmlTextWriterEndDocument(w) >= 0 && xmlTextWriterFlush(w) >= 0)
            text = strdup((const char *)xmlBufferContent(buffer));
        xmlFreeTextWriter(w);
    }
    if (buffer) xmlBufferFree(buffer);
    return text;
}
