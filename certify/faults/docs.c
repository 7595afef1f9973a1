/* docs/faults.md, from the tables. */
#include <stdlib.h>
#include <string.h>

#include "../faults.h"

static const char *what(const hm_fault *fault) { return strchr(fault->id, '.') + 1; }

/* Rows that two ops share are told once: is there an earlier row of the same name, with the same text? */
static bool told(int i) {
    for (int j = 0; j < i; j++)
        if (!strcmp(what(hm_fault_at(j)), what(hm_fault_at(i))) &&
            !strcmp(hm_fault_at(j)->sentence, hm_fault_at(i)->sentence))
            return true;
    return false;
}

/* Text of a table cell: a bar would end it. */
static void cell(FILE *to, const char *text) {
    fputs("| ", to);
    for (; *text; text++) {
        if (*text == '|') fputc('\\', to);
        fputc(*text, to);
    }
    fputc(' ', to);
}

static void put_faults(FILE *to) {
    fputs(
        "\n## Faults\n\n| fault | ops | what goes wrong | how to fix it | re-creates | reference "
        "|\n|---|---|---|---|---|---|\n",
        to);
    for (int i = 0; i < hm_fault_count(); i++) {
        const hm_fault *fault = hm_fault_at(i);
        if (told(i)) continue;
        cell(to, what(fault));
        fputs("| ", to);
        for (int j = i; j < hm_fault_count(); j++)
            if (!strcmp(what(hm_fault_at(j)), what(fault))) fprintf(to, "%s%s", j > i ? ", " : "", hm_fault_at(j)->op);
        fputc(' ', to);
        cell(to, fault->sentence);
        cell(to, fault->fix);
        cell(to, fault->covers);
        cell(to, fault->reference);
        fputs("|\n", to);
    }
    fputs("\n## Faults that no test can tell from the contract\n\n", to);
    for (int i = 0; i < hm_fault_count(); i++)
        if (hm_fault_at(i)->equivalent) fprintf(to, "- `%s`: %s.\n", hm_fault_at(i)->id, hm_fault_at(i)->equivalent);
}

bool hm_fault_covers(const hm_fault *fault, const char *bug) {
    size_t length = strlen(bug);
    for (const char *at = fault->covers; *at; at += strspn(at, " ")) {
        size_t word = strcspn(at, " ");
        if (word == length && !strncmp(at, bug, word)) return true;
        at += word;
    }
    return false;
}

static void put_bugs(FILE *to) {
    fputs("\n## Known bugs\n\n| id | what | reference | where it ends |\n|---|---|---|---|\n", to);
    for (int i = 0; i < hm_known_bug_count(); i++) {
        const hm_known_bug *bug = hm_known_bug_at(i);
        int named = 0;
        cell(to, bug->id);
        cell(to, bug->what);
        cell(to, bug->reference);
        fputs("| ", to);
        if (bug->not_applicable) fprintf(to, "not applicable: %s", bug->not_applicable);
        for (int f = 0; f < hm_fault_count(); f++)
            if (hm_fault_covers(hm_fault_at(f), bug->id) && !told(f))
                fprintf(to, "%s%s", named++ ? ", " : "killed: ", what(hm_fault_at(f)));
        fputs(" |\n", to);
    }
}

void hm_faults_describe(FILE *to) {
    fputs(
        "# Faults and known bugs\n\n"
        "This page is written by `hallmark selftest --docs docs/faults.md` from the tables in `certify/faults/`; a "
        "test fails when it is old.\n\n"
        "A **fault** is a bug made on purpose: a variation of an op's contract that runs like any implementation\n"
        "(`hallmark certify --impl fault:rms_norm.eps_dropped`). `hallmark selftest` runs every fault on every case of "
        "the quick suite, on\n"
        "a second seed and on shapes that no suite has, and fails if one survives; `data/cases/kills.json` says which "
        "case kills which\n"
        "fault. A **known bug** was reported in public; it ends in exactly one place: *killed*, by the faults that "
        "make the same\n"
        "mistake in an op of this library, or *not applicable*, with the reason. The word before the dot of an id such "
        "as\n"
        "`gemma.G3m` names the change under study that the bug belongs to.\n\n"
        "References name public GitHub threads: `vllm` is vllm-project/vllm, `sglang` sgl-project/sglang, "
        "`flashinfer`\n"
        "flashinfer-ai/flashinfer, `aiter` ROCm/aiter, `llama.cpp` ggml-org/llama.cpp, `triton` triton-lang/triton, "
        "`TensorRT-LLM`\n"
        "NVIDIA/TensorRT-LLM, `DeepGEMM` deepseek-ai/DeepGEMM, `pytorch` pytorch/pytorch, `transformers` "
        "huggingface/transformers;\n"
        "the others are the repository of that name.\n",
        to);
    put_faults(to);
    put_bugs(to);
}
