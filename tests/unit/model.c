/* model: its files, and what is said of bad ones. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../certify/trace.h"
#include "../../model/model.h"

static char why[512];

/* ---- files ------------------------------------------------------------------------------------------------------- */

/* What is wrong with a file: one tensor or one note is another, or is missing. */
typedef struct {
    const char *tensor, *note, *value; /* value NULL: the note is left out */
    enum { AS_IT_SHOULD_BE, LEFT_OUT, IN_F32, TRANSPOSED, ONE_DIMENSION_MORE, TWICE } how;
} defect;

static void add(hm_trace_writer *w, const defect *d, const char *name, hm_dtype dtype, int64_t a, int64_t b,
                int64_t c) {
    int64_t shape[] = {a, b ? b : 1, c ? c : 1}, turned[] = {b, a, c};
    int ndim = c ? 3 : b ? 2 : 1, more = d->how == ONE_DIMENSION_MORE;
    void *zeros = calloc((size_t)(a * (b ? b : 1) * (c ? c : 1)), 4);
    bool chosen = d->tensor && !strcmp(d->tensor, name);
    if (chosen && d->how == IN_F32) dtype = HM_F32;
    if (!chosen || d->how != LEFT_OUT)
        hm_trace_writer_tensor(w, name, dtype, ndim + (chosen && more), chosen && d->how == TRANSPOSED ? turned : shape,
                               zeros);
    if (chosen && d->how == TWICE) hm_trace_writer_tensor(w, "one.more", dtype, ndim, shape, zeros);
    free(zeros);
}

enum { VOCAB = 7, HIDDEN = 6, HEADS = 2, Q = 5, KV = 8, ROPE = 4, NOPE = 3, VALUE = 2, INDEX = 128, MLP = 9 };

/* A model of one layer, all zeros. */
static const char *write_model(const defect *d) {
    static char path[64];
    snprintf(path, sizeof path, "/tmp/hallmark-unit-model-%d", (int)getpid());
    static const char *const notes[][2] = {
        {"vocab", "7"},       {"hidden", "6"},        {"layers", "1"}, {"heads", "2"},
        {"q_latent", "5"},    {"kv_latent", "8"},     {"rope", "4"},   {"nope", "3"},
        {"value", "2"},       {"index_heads", "1"},   {"mlp", "9"},    {"index_dim", "128"},
        {"rope_base", "100"}, {"max_position", "16"}, {"top_k", "2"},  {"eps", "1e-6"}};
    hm_trace_writer *w = hm_trace_writer_new();
    for (size_t i = 0; i < sizeof notes / sizeof *notes; i++) {
        bool chosen = d->note && !strcmp(d->note, notes[i][0]);
        if (!chosen || d->value) hm_trace_writer_note(w, notes[i][0], chosen ? d->value : notes[i][1]);
    }
    add(w, d, "embedding.weight", HM_BF16, VOCAB, HIDDEN, 0);
    add(w, d, "final_norm.weight", HM_BF16, HIDDEN, 0, 0);
    add(w, d, "head.weight", HM_BF16, VOCAB, HIDDEN, 0);
    add(w, d, "layers.0.attn_norm.weight", HM_BF16, HIDDEN, 0, 0);
    add(w, d, "layers.0.attn.q_a.weight", HM_BF16, Q, HIDDEN, 0);
    add(w, d, "layers.0.attn.q_norm.weight", HM_BF16, Q, 0, 0);
    add(w, d, "layers.0.attn.q_b.weight", HM_BF16, HEADS * (NOPE + ROPE), Q, 0);
    add(w, d, "layers.0.attn.kv_a.weight", HM_BF16, KV + ROPE, HIDDEN, 0);
    add(w, d, "layers.0.attn.kv_norm.weight", HM_BF16, KV, 0, 0);
    add(w, d, "layers.0.attn.w_uk.weight", HM_BF16, HEADS, KV, NOPE);
    add(w, d, "layers.0.attn.w_uv.weight", HM_BF16, HEADS, VALUE, KV);
    add(w, d, "layers.0.attn.o.weight", HM_BF16, HIDDEN, HEADS * VALUE, 0);
    add(w, d, "layers.0.indexer.q.weight", HM_BF16, INDEX, Q, 0);
    add(w, d, "layers.0.indexer.k.weight", HM_BF16, INDEX, HIDDEN, 0);
    add(w, d, "layers.0.indexer.weights.weight", HM_BF16, 1, HIDDEN, 0);
    add(w, d, "layers.0.indexer.k_norm.weight", HM_F32, INDEX, 0, 0);
    add(w, d, "layers.0.indexer.k_norm.bias", HM_F32, INDEX, 0, 0);
    add(w, d, "layers.0.mlp_norm.weight", HM_BF16, HIDDEN, 0, 0);
    add(w, d, "layers.0.mlp.gate_up.weight", HM_BF16, 2 * MLP, HIDDEN, 0);
    add(w, d, "layers.0.mlp.down.weight", HM_BF16, HIDDEN, MLP, 0);
    cr_assert_eq(hm_trace_writer_save(w, path, why, sizeof why), HM_OK, "%s", why);
    return path;
}

static void refused(defect d, const char *sentence) {
    hm_model *model = hm_model_open(write_model(&d), why, sizeof why);
    cr_expect_null(model, "no error with \"%s\"", sentence);
    cr_expect_not_null(strstr(why, sentence), "\"%s\" is not in \"%s\"", sentence, why);
    hm_model_close(model);
}

Test(model, a_bad_file_is_one_sentence) {
    hm_model *model = hm_model_open(write_model(&(defect){0}), why, sizeof why);
    cr_assert_not_null(model, "%s", why);
    cr_expect_eq(hm_model_sizes_of(model)->kv_latent, KV);
    cr_expect_eq(hm_model_sizes_of(model)->eps, 1e-6);
    hm_model_close(model);
    hm_model_close(NULL);
    refused((defect){.note = "heads"},
            "__metadata__ has nothing for \"heads\"; it has to be an integer from 1 to 1024");
    refused((defect){.note = "heads", .value = "2x"}, "has \"2x\" for \"heads\"");
    refused((defect){.note = "heads", .value = "0"}, "has \"0\" for \"heads\"");
    refused((defect){.note = "layers", .value = "99999999999999999999"}, "for \"layers\"; it has to be an integer");
    refused((defect){.note = "layers", .value = "2"}, "there is no tensor \"layers.1.attn_norm.weight\"");
    refused((defect){.note = "eps"}, "no \"eps\" above 0");
    refused((defect){.note = "eps", .value = "nan"}, "no \"eps\" above 0");
    refused((defect){.note = "mlp", .value = "8"},
            "layers.0.mlp.gate_up.weight is [18, 6]; by the sizes in __metadata__ it has to be [16, 6]");
    refused((defect){.tensor = "head.weight", .how = LEFT_OUT}, "there is no tensor \"head.weight\"");
    refused((defect){.tensor = "layers.0.attn.w_uk.weight", .how = TRANSPOSED},
            "w_uk.weight is [8, 2, 3]; by the sizes in __metadata__ it has to be [2, 8, 3]");
    refused((defect){.tensor = "layers.0.attn.o.weight", .how = IN_F32},
            "layers.0.attn.o.weight is F32; it has to be BF16");
    refused((defect){.tensor = "final_norm.weight", .how = ONE_DIMENSION_MORE}, "final_norm.weight is [6, 1]; by the");
    refused((defect){.tensor = "final_norm.weight", .how = TWICE},
            "the file has 21 tensors; a model of 1 layers has 20");
    unlink(write_model(&(defect){0}));
    cr_expect_null(hm_model_open("/nowhere/model", why, sizeof why));
    cr_expect_not_null(strstr(why, "/nowhere/model"), "%s", why);
    cr_expect_null(hm_model_open("data/gsm8k/vocab.json", why, sizeof why));
}

static const char *text_file(const char *text) {
    static char path[64];
    snprintf(path, sizeof path, "/tmp/hallmark-unit-model-%d", (int)getpid());
    FILE *file = fopen(path, "w");
    cr_assert(file && fputs(text, file) >= 0 && !fclose(file));
    return path;
}

#define PROBLEM                                                                                                   \
    "{\"id\": 3, \"family\": \"f\", \"difficulty\": 2, \"offset\": 0, \"question\": \"q\", \"solution\": \"s\", " \
    "\"answer\": \"1\", \"prompt_ids\": [1, 2], \"solution_ids\": [6]}"

Test(model, bad_words_and_problems_are_refused) {
    static const struct {
        const char *text, *sentence;
    } words[] = {{"", "line"},
                 {"{}", "a list of strings"},
                 {"[]", "a list of strings"},
                 {"[\"a\", 1]", "a list of strings"}},
      problems[] = {{"", "there is no problem in it"},
                    {"1\n", "line 1: it has to hold a JSON object"},
                    {PROBLEM "\n{}\n", "line 2: id, difficulty and offset"},
                    {PROBLEM "\n" PROBLEM, ""}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        cr_expect_null(hm_vocab_open(text_file(words[i].text), why, sizeof why));
        cr_expect_not_null(strstr(why, words[i].sentence), "%s", why);
    }
    for (size_t i = 0; i < sizeof problems / sizeof *problems; i++) {
        hm_problems *p = hm_problems_open(text_file(problems[i].text), 7, why, sizeof why);
        cr_expect_eq(p != NULL, !*problems[i].sentence, "%s", why);
        cr_expect(p || strstr(why, problems[i].sentence), "%s", why);
        if (p) cr_expect_eq(hm_problems_count(p), 2);
        hm_problems_close(p);
    }
    cr_expect_null(hm_problems_open(text_file(PROBLEM), 6, why, sizeof why)); /* token 6 of a vocabulary of 6 */
    cr_expect_not_null(strstr(why, "line 1: prompt_ids and solution_ids"), "%s", why);
    unlink(text_file(""));
    cr_expect_null(hm_vocab_open("/nowhere", why, sizeof why));
    cr_expect_null(hm_problems_open("/nowhere", 7, why, sizeof why));
}

Test(model, the_answer_is_what_follows_the_last_mark) {
    hm_vocab *vocab = hm_vocab_open(text_file("[\"1\", \"2\", \"####\", \".\"]"), why, sizeof why);
    char answer[3];
    unlink(text_file(""));
    cr_assert_not_null(vocab, "%s", why);
    cr_expect(hm_model_answer(vocab, (int32_t[]){2, 1, 2, 0, 1, 3, 0}, 7, answer, sizeof answer));
    cr_expect_str_eq(answer, "12");
    cr_expect(hm_model_answer(vocab, (int32_t[]){2, 0, 0, 0}, 4, answer, sizeof answer)); /* cut, not overrun */
    cr_expect_str_eq(answer, "11");
    cr_expect_not(hm_model_answer(vocab, (int32_t[]){0, 1}, 2, answer, sizeof answer));
    cr_expect_not(hm_model_answer(vocab, (int32_t[]){0, 2}, 2, answer, sizeof answer));
    cr_expect_not(hm_model_answer(vocab, (int32_t[]){2, 3, 1}, 3, answer, sizeof answer));
    cr_expect_not(hm_model_answer(vocab, (int32_t[]){9}, 1, answer, sizeof answer));
    hm_vocab_close(vocab);
}
